package plugins

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemaURL is where the schema stands for its own references.
const schemaURL = "urn:parley:config_schema"

// CheckConfig holds Config against ConfigSchema (JSON Schema 2020-12 unless it
// names another draft). The error names the place in the config by its JSON
// pointer (RFC 6901; "" is the whole). A config that is not there counts as an empty object. The schema's
// author decides how long this takes, so strangers' manifests are checked in
// their trial.
func (m Manifest) CheckConfig() error {
	if m.ConfigSchema == nil {
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.ConfigSchema))
	if err != nil {
		return fmt.Errorf("config_schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return fmt.Errorf("config_schema: %w", err)
	}
	schema, err := c.Compile(schemaURL)
	if err != nil {
		return fmt.Errorf("config_schema: %w", oneLine(err))
	}
	config := m.Config
	if config == nil {
		config = []byte("{}")
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(config))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	var bad *jsonschema.ValidationError
	if err := schema.Validate(value); errors.As(err, &bad) {
		unit := leaf(bad).BasicOutput()
		return fmt.Errorf("config does not satisfy config_schema: at %q: %s", unit.InstanceLocation, short(unit.Error.String()))
	} else if err != nil {
		return fmt.Errorf("config: %w", oneLine(err))
	}
	return nil
}

// noLoader keeps a schema from reading files or the network.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s: a schema may only refer to itself", url)
}

// leaf returns the first error that has no cause below it.
func leaf(e *jsonschema.ValidationError) *jsonschema.ValidationError {
	for len(e.Causes) > 0 {
		e = e.Causes[0]
	}
	return e
}

// oneLine joins an error's lines.
func oneLine(err error) error {
	return errors.New(short(strings.Join(strings.Fields(err.Error()), " ")))
}

// short cuts a text that may quote a whole config.
func short(s string) string {
	const most = 300 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
