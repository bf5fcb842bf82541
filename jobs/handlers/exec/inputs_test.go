//go:build unix

package exec

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/handlertest"
)

// TestInputs gives a program inputs as arguments and on stdin, under every kind of confinement.
func TestInputs(t *testing.T) {
	t.Parallel()
	command := []string{
		"/bin/sh", "-c", `cat "$1" && cat && shift && printf '|%s' "$@"`, "sh",
		"{{.inputs.image.path}}", "{{.inputs.image.name}}", "{{.inputs.image.content_type}}", "{{.inputs.image.size}}",
		"{{with .inputs.text}}{{.name}}{{end}}", "{{range .payload.list}}{{$.inputs.text.size}}{{end}}",
	}
	const want = `"a picture and a text|a b.png|image/png|9|t.txt|1111"`
	confinements := map[string]map[string]any{
		"none":       {},
		"a sandbox":  {"sandbox.read": []string{"/bin", "/usr", "/lib", "/lib64", "/etc"}},
		"no sandbox": {"sandbox.mode": "off"},
	}
	if os.Getuid() == 0 {
		confinements["another user"] = map[string]any{"user": "65534:65534"}
	}
	for name, more := range confinements {
		t.Run(name, func(t *testing.T) {
			settings := map[string]any{"command": command, "stdin": "input:text"}
			for k, v := range more {
				settings[k] = v
			}
			h, _ := handler(t, settings)
			payload := `{"list":[1,2]}`
			if err := h.Check(jobs.NewPayload(json.RawMessage(payload))); err != nil {
				t.Errorf("the door says %v", err)
			}
			task := handlertest.NewTask(t, payload)
			task.Give("image", "a b.png", "image/png", []byte("a picture"))
			task.Give("text", "t.txt", "text/plain", []byte(" and a text"))
			r, err := h.Handle(t.Context(), task.Task)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := json.Marshal(r.Value); string(got) != want {
				t.Errorf("the result is %s, want %s", got, want)
			}
		})
	}
}

// TestInputsThatDoNotFit ends the job, or the start of the server.
func TestInputsThatDoNotFit(t *testing.T) {
	t.Parallel()
	h, _ := handler(t, map[string]any{"command": []string{"echo", "{{.inputs.image.name}}"}})
	task := handlertest.NewTask(t, "{}")
	task.Give("image", "-rf", "image/png", nil)
	if _, err := h.Handle(t.Context(), task.Task); !jobs.IsPermanent(err) || !strings.Contains(err.Error(), `/inputs/image/name: begins with "-"`) {
		t.Errorf("a name like an option ends with %v", err)
	}
	if _, err := h.Handle(t.Context(), handlertest.NewTask(t, "{}").Task); !jobs.IsPermanent(err) || !strings.Contains(err.Error(), `no input "image"`) {
		t.Errorf("without the input it ends with %v", err)
	}
	gone, _ := handler(t, map[string]any{"command": []string{"cat"}, "stdin": "input:text"})
	if _, err := gone.Handle(t.Context(), handlertest.NewTask(t, "{}").Task); !jobs.IsPermanent(err) || !strings.Contains(err.Error(), `no input "text"`) {
		t.Errorf("without stdin it ends with %v", err)
	}
	for text, want := range map[string]string{
		"{{.inputs}}":              "must name an input, like .inputs.image.path",
		"{{.inputs.image.pth}}":    "names .inputs.image.pth, which does not exist; known are path, name, content_type, size",
		"{{.inputs.image.path.x}}": "names .inputs.image.path.x, which does not exist; known are path, name, content_type, size",
	} {
		if _, err := argument.Parse(text); err == nil || err.Error() != want {
			t.Errorf("%s says %v, want %s", text, err, want)
		}
	}
}
