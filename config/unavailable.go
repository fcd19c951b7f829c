package config

// unavailable is what the configuration can ask for and this version does not have. It is refused, for whoever asks
// for protection and gets none has been betrayed. A row goes when its feature arrives.
var unavailable = []struct {
	what, fix string
	usedBy    func(Config) []string // the keys that ask for it
}{
	{"a JWKS", "use auth.jwt_public_key_file or auth.jwt_secret", func(c Config) []string {
		return keyIf(c.Auth.JWKSURL != "", "auth.jwks_url")
	}},
}

func (c Config) checkUnavailable(ps *problems) {
	for _, u := range unavailable {
		for _, key := range u.usedBy(c) {
			ps.add(key, u.what+" is not available in this version", u.fix)
		}
	}
}

func keyIf(used bool, key string) []string {
	if used {
		return []string{key}
	}
	return nil
}
