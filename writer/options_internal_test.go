package writer

import (
	"testing"
	"time"
)

func TestCF1DefaultsAreTheDocumentedOnes(t *testing.T) {
	var o Options
	if err := o.resolve(1 << 30); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]int64{
		"MaxPayload":   {int64(o.MaxPayload), 1 << 20},
		"QueueBytes":   {int64(o.QueueBytes), 4 << 20},
		"QueueEntries": {int64(o.QueueEntries), 65536},
		"BatchBytes":   {int64(o.BatchBytes), 1 << 20},
		"BatchEntries": {int64(o.BatchEntries), 16384},
		"CommitDelay":  {int64(o.CommitDelay), int64(time.Millisecond)},
		"IdleMark":     {int64(o.IdleMark), int64(250 * time.Millisecond)},
		"SyncEvery":    {int64(o.SyncEvery), int64(10 * time.Millisecond)},
		"WarnAfter":    {int64(o.WarnAfter), int64(50 * time.Millisecond)},
		"HaltAfter":    {int64(o.HaltAfter), int64(250 * time.Millisecond)},
		"Sync":         {int64(o.Sync), int64(SyncEachCommit)},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d by default, want %d", name, c[0], c[1])
		}
	}
}
