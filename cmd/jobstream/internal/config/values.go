package config

import (
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"jobstream/jobs"
	"jobstream/jobs/schema"
	"jobstream/jobs/setting"
)

// description is text for people, of one line or more.
func description(path string, p *string) setting.Setting {
	k := setting.Checked(path, p, fmt.Sprintf("text of at most %d bytes (a number needs quotes)", maxDescription), func(s string) bool {
		return len(s) <= maxDescription && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
	})
	return orNothing(k, "")
}

// document is a schema: a section, or the path of a file.
func document(path string, p *schema.Source) setting.Setting {
	return orNothing(setting.Setting{
		Path:    path,
		Allowed: "a JSON Schema, written as a section, or the path of a file with one",
		Tree:    true,
		Get: func() any {
			if p.Inline != "" {
				return setting.Plain(onOneLine([]byte(p.Inline)))
			}
			return p.File
		},
		Set: func(v any) bool {
			switch v := v.(type) {
			case setting.JSON:
				if v[0] != '{' {
					return false
				}
				*p = schema.Source{Inline: string(v)}
				return true
			case string:
				if strings.ContainsFunc(v, unicode.IsControl) {
					return false
				}
				*p = schema.Source{File: v}
				return true
			}
			return false
		},
	}, "")
}

// orNothing makes an empty value of the file the same as v.
func orNothing(k setting.Setting, v any) setting.Setting {
	set := k.Set
	k.Set = func(given any) bool {
		if given == (setting.Null{}) {
			given = v
		}
		return set(given)
	}
	return k
}

// syncInterval is a duration, or "always" for [SyncAlways].
func syncInterval(path string, p *time.Duration) setting.Setting {
	const always = "always"
	k := setting.Duration(path, p, minSync, maxSync)
	set, get := k.Set, k.Get
	k.Allowed += ", or always"
	k.Set = func(v any) bool {
		if s, _ := setting.AsText(v, false); s == always {
			*p = SyncAlways
			return true
		}
		return set(v)
	}
	k.Get = func() any {
		if *p == SyncAlways {
			return always
		}
		return get()
	}
	return k
}

// rate is a rate without its burst, which has a key of its own.
func rate(path string, p *jobs.Rate) setting.Setting {
	return setting.Setting{
		Path:    path,
		Allowed: fmt.Sprintf(`a rate like 100/s, 5/m or 10/30s, from 1/365d to %d/s, or "" for none`, jobs.MaxRatePerSecond),
		Get: func() any {
			if p.IsZero() {
				return ""
			}
			return setting.Plain(p.String())
		},
		Set: func(v any) bool {
			s, ok := setting.AsText(v, false)
			if !ok {
				return false
			}
			r, err := jobs.ParseRate(s)
			if err == nil {
				p.Count, p.Per = r.Count, r.Per
			}
			return err == nil
		},
	}
}

// host is a host to listen on or to connect to.
func host(path string, p *string) setting.Setting {
	return setting.Checked(path, p, "a host name or an IP address (without port)", validHost)
}

// hosts are names of this server in requests.
func hosts(path string, p *[]string) setting.Setting {
	return setting.CheckedTexts(path, p, "a list of host names or IP addresses (without port), like [jobs.example.com]", validHost)
}

func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return !strings.ContainsFunc(s, unicode.IsControl) // a zone may contain anything else
	}
	if s == "" || len(s) > 253 || strings.Trim(s, ".0123456789") == "" {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, notInLabel) {
			return false
		}
	}
	return true
}

// notInLabel allows the underscore, which container names have.
func notInLabel(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

// folder is a path.
func folder(path string, p *string) setting.Setting {
	return setting.Checked(path, p, "the path of a folder", func(s string) bool {
		return strings.TrimSpace(s) != "" && !strings.ContainsFunc(s, unicode.IsControl)
	})
}

// address is a mail address.
func address(path string, p *string) setting.Setting {
	return setting.Checked(path, p, `a mail address like jobs@example.com or "Jobs <jobs@example.com>"`, func(s string) bool {
		_, err := mail.ParseAddress(s)
		return err == nil && !strings.ContainsFunc(s, unicode.IsControl)
	})
}
