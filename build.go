package parley

import (
	"cmp"
	"runtime/debug"
)

// modulePath is under which a build that embeds the server names it.
const modulePath = "github.com/parley-chat/parley"

// version is set by the release build: -ldflags "-X github.com/parley-chat/parley.version=v1.2.3".
var version string

// Version tells which build this is, as far as it was recorded; what was not is "unknown".
func Version() (release, commit string) {
	release = version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(release, "unknown"), "unknown"
	}
	if info.Main.Path != modulePath { // an app that embeds the server: the commit would be its own
		for _, m := range info.Deps {
			if m.Path == modulePath {
				release = cmp.Or(release, m.Version)
			}
		}
		return cmp.Or(release, "unknown"), "unknown"
	}
	return cmp.Or(release, info.Main.Version, "unknown"), commitOf(info)
}

func commitOf(info *debug.BuildInfo) string {
	commit, dirty := "", false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if commit == "" {
		return "unknown"
	}
	if dirty {
		commit += " (modified)"
	}
	return commit
}
