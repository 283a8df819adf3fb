package sqstest

import "time"

var defaultTestTime = time.Unix(1_800_000_000, 0)
