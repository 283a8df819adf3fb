// Package settings gives the example programs flags whose defaults come from the environment, so that
// a pod's manifest can set them either way.
package settings

import (
	"flag"
	"os"
	"strconv"
	"time"
)

// String defines a flag whose default is the variable's value, or fallback.
func String(name, variable, fallback, usage string) *string {
	if v := os.Getenv(variable); v != "" {
		fallback = v
	}
	return flag.String(name, fallback, usage+" ($"+variable+")")
}

// Int defines a flag like String. A variable that is no number is ignored.
func Int(name, variable string, fallback int, usage string) *int {
	if v, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		fallback = v
	}
	return flag.Int(name, fallback, usage+" ($"+variable+")")
}

// Duration defines a flag like String. A variable that is no duration is ignored.
func Duration(name, variable string, fallback time.Duration, usage string) *time.Duration {
	if v, err := time.ParseDuration(os.Getenv(variable)); err == nil {
		fallback = v
	}
	return flag.Duration(name, fallback, usage+" ($"+variable+")")
}
