package queue

import "testing"

func TestStreamsTakeNoMoreThanIsHandled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ messages, streams, perStream, used int }{
		{1, 0, 1, 1}, {1, 25, 1, 1}, {5, 25, 1, 5}, {16, 25, 1, 16}, {64, 25, 3, 21}, {64, 2, 32, 2}, {256, 25, 11, 23}, {3200, 2, 1600, 2}, {7, 2, 3, 2},
	} {
		perStream, used := share(tt.messages, tt.streams)
		if perStream != tt.perStream || used != tt.used {
			t.Errorf("%d messages on %d streams: %d on each of %d, want %d on %d", tt.messages, tt.streams, perStream, used, tt.perStream, tt.used)
		}
		if perStream*used > tt.messages {
			t.Errorf("%d messages on %d streams: %d are taken", tt.messages, tt.streams, perStream*used)
		}
	}
}
