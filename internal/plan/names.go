package plan

import "strings"

// maxFold is how many enclosing names are looked at: enough for what people read.
const maxFold = 12

// foldNames writes unique names as one, with what neighbours share of their enclosing names written once:
// "Read/Split", "Read/Parse", "Count" becomes "Read/{Split, Parse} + Count".
func foldNames(names []string) string {
	groups := fold(names, maxFold)
	return strings.Join(groups, " + ")
}

// fold is one text for each run of names that share their first part.
func fold(names []string, depth int) []string {
	var groups []string
	for i := 0; i < len(names); {
		head, _, deep := strings.Cut(names[i], "/")
		prefix := head + "/"
		j := i + 1
		for deep && depth > 0 && j < len(names) && strings.HasPrefix(names[j], prefix) {
			j++
		}
		if j == i+1 {
			groups = append(groups, names[i])
			i = j
			continue
		}
		inner := make([]string, 0, j-i)
		for _, n := range names[i:j] {
			inner = append(inner, strings.TrimPrefix(n, prefix))
		}
		parts := fold(inner, depth-1)
		if len(parts) == 1 {
			groups = append(groups, prefix+parts[0])
		} else {
			groups = append(groups, prefix+"{"+strings.Join(parts, ", ")+"}")
		}
		i = j
	}
	return groups
}
