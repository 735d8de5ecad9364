package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Problem is one thing that is wrong with the file.
type Problem struct {
	File    string
	Line    int    // from 1; 0 where the fault is that something is missing from the file
	Key     string // such as routes[0].next_hop
	Message string // what is wrong and how to mend it
}

func (p Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Key == "" {
		return where + ": " + p.Message
	}
	return where + ": " + p.Key + ": " + p.Message
}

// Problems are all the things that are wrong with the file.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads the file at path. What is wrong inside the file is reported as Problems.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file at %s; `sealpost init DIR` writes one", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a file's content. name is used in messages and to resolve relative paths.
func Parse(name string, data []byte) (*Config, error) {
	source, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, Problems{yamlProblem(name, err)}
	}
	file := &document{name: name, source: source}
	config := defaults()
	if body := file.body(); body != nil {
		file.checkKeys(body, reflect.TypeFor[Config](), "")
		if len(file.problems) == 0 {
			if err := yaml.NodeToValue(body, &config); err != nil {
				file.problems = append(file.problems, yamlProblem(name, err))
			}
		}
	}
	if len(file.problems) == 0 {
		config.resolvePaths(filepath.Dir(name))
		file.validate(&config)
	}
	if len(file.problems) > 0 {
		slices.SortStableFunc(file.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
		})
		return nil, file.problems
	}
	return &config, nil
}

// document is the file being read and what was found wrong with it.
type document struct {
	name     string
	source   *ast.File
	problems Problems
}

func (d *document) body() ast.Node {
	if len(d.source.Docs) == 0 {
		return nil
	}
	return d.source.Docs[0].Body
}

// report adds a problem at the line of key, or of the nearest key above it that the file has.
func (d *document) report(key, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.name, Line: d.line(key), Key: key, Message: fmt.Sprintf(format, args...)})
}

func (d *document) line(key string) int {
	for key != "" {
		path, err := yaml.PathString("$." + key)
		if err == nil {
			if node, err := path.FilterFile(d.source); err == nil && node != nil {
				return node.GetToken().Position.Line
			}
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 0
}

// checkKeys reports each key below node that shape has no field for.
func (d *document) checkKeys(node ast.Node, shape reflect.Type, above string) {
	switch node := node.(type) {
	case *ast.MappingNode:
		for _, value := range node.Values {
			d.checkKey(value, shape, above)
		}
	case *ast.MappingValueNode:
		d.checkKey(node, shape, above)
	case *ast.SequenceNode:
		for i, value := range node.Values {
			if shape.Kind() == reflect.Slice {
				d.checkKeys(value, shape.Elem(), fmt.Sprintf("%s[%d]", above, i))
			}
		}
	case ast.ScalarNode:
		d.checkValue(node, shape, above)
	}
}

// checkValue tries a value that has a syntax of its own here, since the decoder would not say where it is.
func (d *document) checkValue(node ast.ScalarNode, shape reflect.Type, key string) {
	value, ok := reflect.New(shape).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return
	}
	if err := value.UnmarshalText([]byte(node.GetToken().Value)); err != nil {
		d.problems = append(d.problems, Problem{d.name, node.GetToken().Position.Line, key, err.Error()})
	}
}

func (d *document) checkKey(value *ast.MappingValueNode, shape reflect.Type, above string) {
	name := value.Key.GetToken().Value
	key := strings.TrimPrefix(above+"."+name, ".")
	if shape.Kind() != reflect.Struct || len(keysOf(shape)) == 0 {
		d.problems = append(d.problems, Problem{d.name, value.Key.GetToken().Position.Line, key,
			"there is nothing below " + above})
		return
	}
	if field, ok := fieldOf(shape, name); ok {
		d.checkKeys(value.Value, field.Type, key)
		return
	}
	d.problems = append(d.problems, Problem{d.name, value.Key.GetToken().Position.Line, key,
		fmt.Sprintf("unknown key; did you mean %q?", nearest(name, keysOf(shape)))})
}

func fieldOf(shape reflect.Type, key string) (reflect.StructField, bool) {
	for field := range shape.Fields() {
		if field.Tag.Get("yaml") == key {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

func keysOf(shape reflect.Type) []string {
	var keys []string
	for field := range shape.Fields() {
		if tag := field.Tag.Get("yaml"); tag != "" {
			keys = append(keys, tag)
		}
	}
	return keys
}

// nearest returns the key that needs the fewest edits to become name.
func nearest(name string, keys []string) string {
	return slices.MinFunc(keys, func(a, b string) int { return distance(name, a) - distance(name, b) })
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// yamlProblem turns a parser's error into a Problem, without the library's picture of the source.
func yamlProblem(name string, err error) Problem {
	var positioned yaml.Error
	if errors.As(err, &positioned) && positioned.GetToken() != nil {
		return Problem{File: name, Line: positioned.GetToken().Position.Line, Message: positioned.GetMessage()}
	}
	return Problem{File: name, Message: err.Error()}
}
