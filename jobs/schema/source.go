package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"jobstream/jobs/strict"
)

// MaxSize bounds the text of a schema, in bytes, and that of each file that it leads to.
const MaxSize = 256 << 10

// Source is where the schema of a type stands: in the configuration, or in a file of its
// own. The zero Source is no schema.
type Source struct {
	Inline string // JSON
	File   string // a path; a relative one begins at Folder
	Folder string // that of the configuration's file
	Digest string // [Schema.Digest], so that sources of the same schema are equal; Compile does not look at it
}

// IsZero says whether there is no schema.
func (s Source) IsZero() bool { return s.Inline == "" && s.File == "" }

// Problem is the reason why a schema cannot be used.
type Problem struct {
	At   []string // the names that lead to it in an inline schema
	Text string
}

func (p *Problem) Error() string { return pointer(p.At) + ": " + p.Text }

// Compile reads the schema. Files that it refers to must be in Folder or below it; if File is
// somewhere else, in the folder of File. The error is a [*Problem].
func (s Source) Compile() (*Schema, error) {
	made, err := s.compile()
	var p *Problem
	if err != nil && !errors.As(err, &p) {
		return nil, &Problem{Text: err.Error()}
	}
	return made, err
}

func (s Source) compile() (*Schema, error) {
	folder, err := filepath.Abs(s.Folder)
	if err != nil {
		return nil, err
	}
	name := "schema"
	if s.File != "" {
		if name = s.File; !filepath.IsAbs(name) {
			name = filepath.Join(folder, name)
		}
		if name, err = filepath.Rel(folder, name); err != nil || !filepath.IsLocal(name) {
			folder, name = filepath.Dir(filepath.Join(folder, name)), filepath.Base(name)
		}
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	c := compiler{root: root, read: make(map[string][sha256.Size]byte), folder: folder, main: (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(folder, name))}).String(), file: s.File}
	text := []byte(s.Inline)
	if s.File != "" {
		if text, err = c.textOf(name); err != nil {
			return nil, err
		}
	}
	return c.compile(text)
}

// compiler compiles one schema.
type compiler struct {
	root   *os.Root
	read   map[string][sha256.Size]byte // the hashes of the files that were read
	folder string
	main   string // the URL of the schema itself
	file   string // as it was given; "" for an inline one
}

func (c *compiler) compile(text []byte) (*Schema, error) {
	doc, err := parse(text)
	if err != nil {
		if c.file != "" {
			return nil, fmt.Errorf("%s: %w", c.file, err)
		}
		return nil, err
	}
	lib := jsonschema.NewCompiler()
	lib.DefaultDraft(jsonschema.Draft2020)
	lib.AssertFormat()
	lib.UseLoader(c)
	const fits = "mem:///fits"
	if err := errors.Join(lib.AddResource(c.main, doc), lib.AddResource(fits, map[string]any{"not": map[string]any{"$ref": c.main}})); err != nil {
		return nil, err
	}
	var s Schema
	if s.full, err = lib.Compile(c.main); err == nil {
		s.fits, err = lib.Compile(fits)
	}
	if err != nil {
		return nil, c.explain(err)
	}
	visit(s.fits, make(map[*jsonschema.Schema]bool), func(part *jsonschema.Schema) { // full is a part of it
		withNames(part)
		if err == nil && c.file == "" {
			err = c.checkKeywords(part, doc)
		}
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, err
	}
	s.text = b.Bytes()
	all := sha256.New()
	_, _ = all.Write(s.text) // a hash takes everything
	for _, name := range slices.Sorted(maps.Keys(c.read)) {
		sum := c.read[name]
		fmt.Fprintf(all, "%q %x\n", name, sum)
	}
	s.digest = hex.EncodeToString(all.Sum(nil))
	return &s, nil
}

// keywords are those of all drafts.
var keywords = strings.Fields(`
	$id id $schema $ref $anchor $dynamicRef $dynamicAnchor $recursiveRef $recursiveAnchor $vocabulary $comment $defs definitions
	type enum const allOf anyOf oneOf not if then else format
	properties patternProperties additionalProperties unevaluatedProperties propertyNames required dependentRequired
	dependentSchemas dependencies minProperties maxProperties
	prefixItems items additionalItems unevaluatedItems contains minContains maxContains minItems maxItems uniqueItems
	minLength maxLength pattern contentEncoding contentMediaType contentSchema
	minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
	title description default examples deprecated readOnly writeOnly`)

// checkKeywords refuses keywords in a part of an inline schema that mean nothing. JSON Schema
// ignores them, so that a mistyped one would let everything through.
func (c *compiler) checkKeywords(part *jsonschema.Schema, doc any) error {
	address, ok := strings.CutPrefix(part.Location, c.main)
	if !ok {
		return nil
	}
	at := doc
	names := namesOf(address)
	for _, name := range names {
		switch v := at.(type) {
		case map[string]any:
			at = v[name]
		case []any:
			if i, err := strconv.Atoi(name); err == nil && i < len(v) {
				at = v[i]
			}
		}
	}
	object, _ := at.(map[string]any)
	for _, word := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(keywords, word) && !strings.HasPrefix(word, "x-") {
			return &Problem{At: append(names, word), Text: "is no keyword of JSON Schema; those of your own begin with x-"}
		}
	}
	return nil
}

// namesOf are the names in the fragment of an address.
func namesOf(address string) (names []string) {
	_, fragment, _ := strings.Cut(address, "#")
	if s, err := url.PathUnescape(fragment); err == nil {
		fragment = s
	}
	for _, name := range strings.Split(fragment, "/")[1:] {
		names = append(names, strings.NewReplacer("~1", "/", "~0", "~").Replace(name))
	}
	return names
}

// parse reads the text of a schema.
func parse(text []byte) (any, error) {
	if err := strict.Check(text); err != nil {
		return nil, errors.New(strings.Replace(err.Error(), "the body", "the schema", 1))
	}
	if strict.TooDeep(text) {
		return nil, fmt.Errorf("is nested deeper than %d", strict.MaxDepth)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if _, err := survey(text, doc, ""); err != nil {
		return nil, err
	}
	switch doc.(type) {
	case map[string]any, bool:
		return doc, nil
	}
	return nil, errors.New("must be an object, as JSON Schema has it")
}

// Load implements [jsonschema.URLLoader] for what a schema refers to.
func (c *compiler) Load(address string) (any, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "file" {
		return nil, errors.New("only files beside the configuration are read")
	}
	name, err := filepath.Rel(c.folder, filepath.FromSlash(u.Path))
	if err != nil || !filepath.IsLocal(name) {
		return nil, fmt.Errorf("only files below %s are read", c.folder)
	}
	text, err := c.textOf(name)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

// textOf is the text of a file.
func (c *compiler) textOf(name string) ([]byte, error) {
	f, err := c.root.Open(name)
	var path *fs.PathError
	if errors.As(err, &path) {
		return nil, fmt.Errorf("%s: %w", name, path.Err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err == nil && len(text) > MaxSize {
		err = fmt.Errorf("%s is larger than %d KiB", name, MaxSize>>10)
	}
	c.read[name] = sha256.Sum256(text)
	return text, err
}

// explain says in this project's words why a schema does not compile.
func (c *compiler) explain(err error) error {
	var (
		invalid *jsonschema.SchemaValidationError
		wrong   *jsonschema.ValidationError
		regex   *jsonschema.InvalidRegexError
		load    *jsonschema.LoadURLError
		pointer *jsonschema.JSONPointerNotFoundError
		anchor  *jsonschema.AnchorNotFoundError
	)
	switch {
	case errors.As(err, &invalid) && errors.As(invalid.Err, &wrong):
		all := problemsOf(wrong)
		return c.at(invalid.URL, all[0].at, all[0].detail)
	case errors.As(err, &regex):
		return c.at(regex.URL, nil, "is no pattern that can be used: "+regex.Err.Error())
	case errors.As(err, &load):
		return c.at(c.main, nil, "refers to "+c.short(load.URL)+": "+load.Err.Error())
	case errors.As(err, &pointer):
		return c.at(c.main, nil, "refers to "+c.short(pointer.URL)+", which does not exist")
	case errors.As(err, &anchor):
		return c.at(c.main, nil, "refers to "+c.short(anchor.Reference)+", which does not exist")
	}
	return err
}

// at is a problem of the schema at an address, below these names of it.
func (c *compiler) at(address string, below []string, text string) error {
	base, _, _ := strings.Cut(address, "#")
	names := append(namesOf(address), below...)
	switch where := pointer(names); {
	case base == c.main && c.file == "":
		return &Problem{At: names, Text: text}
	case base == c.main && where == "":
		return &Problem{Text: c.file + " " + text}
	case where == "":
		return &Problem{Text: c.short(base) + " " + text}
	case base == c.main:
		return &Problem{Text: c.file + " at " + where + " " + text}
	default:
		return &Problem{Text: c.short(base) + " at " + where + " " + text}
	}
}

// short is an address without the folder of the configuration.
func (c *compiler) short(address string) string {
	if rest, ok := strings.CutPrefix(address, c.main+"#"); ok {
		return "#" + rest
	}
	root := url.URL{Scheme: "file", Path: filepath.ToSlash(c.folder) + "/"}
	return strings.TrimPrefix(address, root.String())
}
