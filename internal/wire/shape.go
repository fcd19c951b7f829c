package wire

import (
	"fmt"

	"github.com/parley-chat/parley/chat"
)

// The limits of a frame's shape. The protocol's own frames have 8 fields and 2 levels at the most; there is room for
// those of later versions, which are ignored.
const (
	MaxDepth  = 16 // of objects and arrays within each other, the frame's own counted
	MaxFields = 64 // of the frame itself
)

// checkShape refuses what would cost a decoder more than it can be worth. It looks at each byte once, and understands
// strings and brackets only: what is no JSON is for the decoder to refuse.
func checkShape(data []byte) error {
	depth, fields := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = stringEnd(data, i+1)
		case '{', '[':
			if depth++; depth > MaxDepth {
				return chat.NewError(chat.CodeInvalidJSON, fmt.Sprintf("the frame has more than %d levels", MaxDepth))
			}
		case '}', ']':
			depth--
		case ':': // outside of strings there is one after each field's name
			if depth != 1 {
				continue
			}
			if fields++; fields > MaxFields {
				return chat.NewError(chat.CodeInvalidMessage, fmt.Sprintf("the frame has more than %d fields", MaxFields))
			}
		}
	}
	return nil
}

// stringEnd gives the place of the quote that ends the string which goes on at i, or the end of data.
func stringEnd(data []byte, i int) int {
	for i < len(data) && data[i] != '"' {
		if data[i] == '\\' {
			i++ // what is escaped ends nothing
		}
		i++
	}
	return i
}
