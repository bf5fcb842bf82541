package main

import (
	"fmt"
	"jobstream/jobs/access"
)

func main() { t := access.NewToken(); fmt.Println(t, access.HashOf(t)) }
