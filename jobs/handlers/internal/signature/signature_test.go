package signature_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"jobstream/jobs/handlers/internal/signature"
)

func secret(c byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{c}, 32))
}

// TestSignatureIsThatOfTheStandard asks the official library.
func TestSignatureIsThatOfTheStandard(t *testing.T) {
	t.Parallel()
	before, now, other := secret(0xfb), secret('b'), secret('c')
	for _, body := range []string{"", `{"to":"a@example.com"}`, strings.Repeat("x", 1<<20), "\x00\xff"} {
		s, err := signature.Parse(before, now)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if err := s.Sign(h, "0198.1", time.Now(), strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]bool{before: true, now: true, other: false} {
			w, err := standardwebhooks.NewWebhook(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Verify([]byte(body), h); (err == nil) != want {
				t.Errorf("%d bytes, verified: %v, want %t", len(body), err, want)
			}
			if err := w.Verify([]byte(body+"."), h); err == nil {
				t.Error("another body passes")
			}
		}
		if n := len(strings.Fields(h.Get("webhook-signature"))); n != 2 {
			t.Errorf("%d signatures", n)
		}
	}
}

func TestSignNothing(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	if err := signature.Secrets(nil).Sign(h, "1", time.Now(), strings.NewReader("x")); err != nil || len(h) > 0 {
		t.Errorf("%v %v", h, err)
	}
	s, err := signature.Parse(secret('a'))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := s.Sign(h, "1", time.Now(), iotest.ErrReader(broken)); !errors.Is(err, broken) || len(h) > 0 {
		t.Errorf("%v %v", h, err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	of := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for text, ok := range map[string]bool{
		of(24): true, of(64): true, of(23): false, of(65): false, "": false, "whsec_": false,
		strings.TrimPrefix(of(32), "whsec_"): false, "whsec_" + strings.Repeat("!", 32): false, of(32) + " ": false,
	} {
		_, err := signature.Parse(text)
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && text != "" && text != "whsec_" && strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}
