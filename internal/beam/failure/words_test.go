package failure

import "testing"

func TestWords(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"TypeError: cannot encode <K object at 0x7fa3b0140d00>", "TypeError: cannot encode <K object at 0x7f9cb43d4d90>", true},
		{"java.lang.IllegalStateException: com.x.Thing@1b2c3d4 is closed", "java.lang.IllegalStateException: com.x.Thing@70dea4e is closed", true},
		{"runtime error: 0xc000012345", "runtime error: 0xc0000aff10", true},
		{"KeyError: 'a'", "KeyError: 'b'", false},
		{"row 17 has 3 columns", "row 18 has 3 columns", false},
		{"user@example.com is unknown", "other@example.com is unknown", false},
	} {
		if same := Words(c.a) == Words(c.b); same != c.same {
			t.Errorf("%q and %q have the same words: %t", c.a, c.b, same)
		}
	}
}
