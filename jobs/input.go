package jobs

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"os"
	"slices"
	"strings"
	"time"

	"jobstream/jobs/strict"
)

// Input is a file that a job gets. It has been uploaded for that, or another job has left
// it.
type Input struct {
	Name string   // what the job's type calls it
	ID   ID       // of the file; zero in a submission that names Job
	Job  ID       // the job that has left it; zero for an upload
	File Artifact // in a submission it has at most the name of a file of Job
}

// InputTime is how long the file of an input is kept that no job has: after its upload,
// and after the record of the last job with it was deleted.
const InputTime = 24 * time.Hour

// MaxInputs is the largest number of inputs of one job.
const MaxInputs = 16

// Inputs are the inputs of the job. The caller does not change them.
func (j *Job) Inputs() []Input { return j.Terms.inputs() }

// inputs are the inputs in some terms, which may be nil.
func (t *Terms) inputs() []Input {
	if t == nil {
		return nil
	}
	return t.Inputs
}

// InputRule is an input that the jobs of a type need.
type InputRule struct {
	Name  string
	Types []string // its possible content types, like text/csv or image/*; none = any
	Max   int64    // its largest size in bytes; 0 = no bound
}

// ValidInputName says whether name can be that of an input; see [ValidTypeName].
func ValidInputName(name string) bool { return ValidTypeName(name) }

// ValidContentType says whether text can stand among the types of a rule.
func ValidContentType(text string) bool {
	of, sub, ok := strings.Cut(text, "/")
	return ok && of != "" && sub != "" && text == strings.ToLower(text) && !strings.ContainsAny(text, " ;,") && !strings.Contains(of, "*") && (sub == "*" || !strings.Contains(sub, "*"))
}

// rule is the rule for the input with this name; nil if the type has none.
func (t *Type) rule(name string) *InputRule {
	for i := range t.Inputs {
		if t.Inputs[i].Name == name {
			return &t.Inputs[i]
		}
	}
	return nil
}

// CheckInputs returns the problems with the names of a job's inputs: those that the type
// does not know, and those that it needs and are not there.
func (t *Type) CheckInputs(inputs []Input) (wrong []FieldError) {
	for i := range inputs {
		if name := inputs[i].Name; t.rule(name) == nil {
			wrong = append(wrong, FieldError{inputPointer(name), "is not an input of type " + t.Name + "; " + t.knownInputs()})
		}
	}
	for i := range t.Inputs {
		name := t.Inputs[i].Name
		if !slices.ContainsFunc(inputs, func(in Input) bool { return in.Name == name }) {
			wrong = append(wrong, FieldError{inputPointer(name), "is required: the id of an upload by POST /artifacts, or a job that has left the file"})
		}
	}
	return wrong
}

// CheckFile returns the problem with the file of an input, nil if there is none.
func (t *Type) CheckFile(in *Input) *FieldError {
	r := t.rule(in.Name)
	if r == nil {
		return nil
	}
	if len(r.Types) > 0 && !slices.ContainsFunc(r.Types, func(want string) bool { return contentTypeIs(in.File.ContentType, want) }) {
		return &FieldError{inputPointer(in.Name), fmt.Sprintf("is %s; type %s takes %s", Quote(in.File.ContentType), t.Name, strings.Join(r.Types, ", "))}
	}
	if r.Max > 0 && in.File.Size > r.Max {
		return &FieldError{inputPointer(in.Name), fmt.Sprintf("has %d bytes; type %s takes at most %d", in.File.Size, t.Name, r.Max)}
	}
	return nil
}

func (t *Type) knownInputs() string {
	if len(t.Inputs) == 0 {
		return "it takes none"
	}
	names := make([]string, len(t.Inputs))
	for i := range t.Inputs {
		names[i] = t.Inputs[i].Name
	}
	return "known are " + strings.Join(names, ", ")
}

func inputPointer(name string) string { return "/inputs" + strict.Pointer(name) }

// contentTypeIs says whether a content type, whose parameters do not count, is the one
// that is wanted.
func contentTypeIs(is, want string) bool {
	media, _, err := mime.ParseMediaType(is)
	if err != nil {
		media, _, _ = strings.Cut(is, ";")
		media = strings.ToLower(strings.TrimSpace(media))
	}
	if of, all := strings.CutSuffix(want, "*"); all {
		return strings.HasPrefix(media, of)
	}
	return media == want
}

// NoJobForInput is the problem with an input that names a job which is not there.
func NoJobForInput(id ID) string { return fmt.Sprintf("there is no job %s", id) }

// NoInput is the problem with an input whose file is not there.
func NoInput(id ID) string {
	return fmt.Sprintf("there is no upload %s; one that no job has is dropped after a day", id)
}

// checkInputs returns the problem with inputs from outside, if any.
func checkInputs(inputs []Input) error {
	if len(inputs) > MaxInputs {
		return fmt.Errorf("has %d entries, at most %d are allowed", len(inputs), MaxInputs)
	}
	for i := range inputs {
		in := &inputs[i]
		sum, err := hex.DecodeString(in.File.SHA256)
		switch {
		case !ValidInputName(in.Name):
			return fmt.Errorf("%s is not the name of an input", Quote(in.Name))
		case slices.ContainsFunc(inputs[:i], func(other Input) bool { return other.Name == in.Name }):
			return fmt.Errorf("%s is given twice", Quote(in.Name))
		case in.ID == ID{} || err != nil || len(sum) != 32 || in.File.Size < 0:
			return fmt.Errorf("%s is not the description of a file", Quote(in.Name))
		}
	}
	return nil
}

// ReadInputs reads the inputs of a submission: an object of names, each with the id of an
// upload, or with {"job": id, "artifact": name}.
func ReadInputs(v strict.Value) (inputs []Input) {
	v.Each(func(of strict.Value) {
		in := Input{Name: of.Name()}
		switch {
		case !ValidInputName(in.Name):
			of.Fail("is not the name of an input: 1 to %d letters, digits, _ and -", MaxTypeName)
		case of.Null():
			return // as if it were not there
		case of.IsText():
			in.ID = readID(of)
		case of.IsObject():
			of.Object(
				strict.Need("job", func(v strict.Value) { in.Job = readID(v) }),
				strict.May("artifact", func(v strict.Value) { in.File.Name, _ = v.Text() }),
			)
		default:
			of.Fail(`must be the id of an upload, or {"job": "…", "artifact": "…"}, not %s`, of)
		}
		if inputs = append(inputs, in); len(inputs) == MaxInputs+1 {
			v.Fail("has more than %d entries", MaxInputs)
		}
	})
	return inputs
}

// readID reads the id of a job or an upload. The zero id stands for none.
func readID(v strict.Value) (id ID) {
	text, ok := v.Text()
	if !ok {
		return id
	}
	id, err := ParseID(text)
	if err != nil || id == (ID{}) {
		v.Fail("is not an id, which is a UUID like 0193a5b1-7c3e-7d2f-8a4b-5c6d7e8f9012: %s", Quote(text))
	}
	return id
}

// AppendInputsJSON appends an object with the inputs by their names.
func AppendInputsJSON(b []byte, inputs []Input) []byte {
	b = append(b, '{')
	for i := range inputs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(AppendString(b, inputs[i].Name), ':')
		b = AppendFieldsJSON(b, InputFields, &inputs[i])
	}
	return append(b, '}')
}

// readInputsJSON is the inverse of AppendInputsJSON.
func readInputsJSON(raw json.RawMessage) (inputs []Input, err error) {
	if raw[0] != '{' {
		return nil, fmt.Errorf("must be an object, not %s", strict.Describe(raw))
	}
	for name, of := range strict.Members(raw) {
		in := Input{Name: name}
		if e := ReadFieldsJSON(of, InputFields, &in); e != nil && err == nil {
			err = fmt.Errorf("%s: %w", Quote(name), e)
		}
		inputs = append(inputs, in)
	}
	return inputs, err
}

// InputFile is the file of an input as a handler gets it. Nobody may write to it.
type InputFile struct {
	Input
	Path string // absolute
}

// Open opens the file for reading.
func (f *InputFile) Open() (*os.File, error) { return os.Open(f.Path) }

// Input is the input of the job with this name. A type that declares it does not get jobs
// without it, unless its declaration is younger than the job.
func (t *Task) Input(name string) (*InputFile, error) {
	inputs := t.Job.Inputs()
	i := slices.IndexFunc(inputs, func(in Input) bool { return in.Name == name })
	if i < 0 {
		return nil, Permanentf("the job has no input %s", Quote(name))
	}
	if t.host == nil {
		return nil, fmt.Errorf("this task has no place for inputs")
	}
	f := &InputFile{Input: inputs[i]}
	var err error
	if f.Path, err = t.host.InputPath(&f.Input); err != nil {
		return nil, fmt.Errorf("input %s: %w", Quote(name), err)
	}
	info, err := os.Stat(f.Path)
	if err == nil && info.Size() != f.File.Size {
		err = fmt.Errorf("the file has %d bytes, its record says %d", info.Size(), f.File.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("input %s cannot be read: %w; restore the file, or run the job again with a new one", Quote(name), err)
	}
	return f, nil
}
