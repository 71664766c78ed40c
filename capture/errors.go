package capture

import (
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

var (
	// ErrCaptureEnded: the log has refused an entry for a reason that is not the entry's; nothing is captured any more.
	ErrCaptureEnded = errors.New("capture has ended")
	// ErrNotRegistered: the registry does not list the Go type.
	ErrNotRegistered = errors.New("type is not registered")
)

// EncodeError: an encoder failed. Nothing was submitted, nothing is remembered, capturing goes on.
type EncodeError struct {
	Topic  string // empty when Registry.Encode returned the error
	Type   string // payload type of the registration
	GoType reflect.Type
	Err    error // the encoder's
}

func (e *EncodeError) Error() string {
	if e.Topic == "" {
		return fmt.Sprintf("encode %v as %q: %v", e.GoType, e.Type, e.Err)
	}
	return fmt.Sprintf("encode %v as %q for topic %q: %v", e.GoType, e.Type, e.Topic, e.Err)
}

func (e *EncodeError) Unwrap() error { return e.Err }

// DraftError: the log refused the draft of one message, since it breaks a limit (the cause is runlog.ErrInvalid).
// Nothing was accepted, nothing is remembered, capturing goes on.
type DraftError struct {
	Topic string
	Type  string // payload type of the draft
	Err   error  // the log's
}

func (e *DraftError) Error() string {
	return fmt.Sprintf("submit %.300q to topic %.300q: %v", e.Type, e.Topic, e.Err)
}

func (e *DraftError) Unwrap() error { return e.Err }

// EndedError: capturing has ended. The capture that met the log's error returns it, and so does every later one, with
// the fields of the first. It is ErrCaptureEnded and what Err is.
type EndedError struct {
	Topic string // what was being submitted
	Type  string
	Err   error // the log's first error
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("%v: submit %q to topic %q: %v", ErrCaptureEnded, e.Type, e.Topic, e.Err)
}

func (e *EndedError) Unwrap() []error { return []error{ErrCaptureEnded, e.Err} }

func checkPayloadType(s string) error {
	if s == "" || len(s) > entry.MaxType || !utf8.ValidString(s) {
		return fmt.Errorf("%w: payload type %.300q: want 1 to %d bytes of UTF-8", format.ErrInvalid, s, entry.MaxType)
	}
	return nil
}

func notRegistered(t reflect.Type) error { return fmt.Errorf("%w: %v", ErrNotRegistered, t) }
