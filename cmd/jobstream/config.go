package main

type configCommand struct{ configFlag }

// Run prints the effective configuration.
func (c *configCommand) Run(p *program) error {
	cfg, err := loadConfig(p, c.File)
	if err != nil {
		return err
	}
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	_, err = p.Stdout.Write(text)
	return err
}
