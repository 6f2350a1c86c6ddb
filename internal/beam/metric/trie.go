package metric

import (
	"fmt"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// defaultBound is the bound of a trie that does not say one: that of the SDKs.
const defaultBound = 100

// maxPath bounds the length of a path, which becomes the depth of a proto: decoders refuse some thousands.
const maxPath = 1000

// boundedTrie is a set of paths (lineage, for one) that forgets the ends of paths when there are too many: message
// BoundedTrie in metrics.proto.
type boundedTrie struct {
	bound int
	root  *trieNode // nil while nothing was added

	encoded []byte
}

// trieNode is a node of a trie. Without children it is a path's end; a truncated one stands for all paths that begin
// so.
type trieNode struct {
	truncated bool
	children  map[string]*trieNode
	leaves    int // how many leaves are below, or 1 for a leaf
}

func (c *boundedTrie) merge(p []byte) error {
	var m pipepb.BoundedTrie
	if err := proto.Unmarshal(p, &m); err != nil {
		return fmt.Errorf("payload is no bounded trie: %w", err)
	}
	if n := len(m.GetSingleton()); n > maxPath {
		return fmt.Errorf("payload is a bounded trie with a path of %d parts", n)
	}
	bound := int(m.GetBound())
	if bound <= 0 {
		bound = defaultBound
	}
	if c.bound == 0 || bound < c.bound {
		c.bound = bound
	}
	switch {
	case m.GetRoot() != nil:
		c.join(readTrie(m.GetRoot()))
	case len(m.GetSingleton()) > 0:
		n := &trieNode{leaves: 1}
		for _, s := range slices.Backward(m.GetSingleton()) {
			n = &trieNode{children: map[string]*trieNode{s: n}, leaves: 1}
		}
		c.join(n)
	}
	for c.root != nil && c.root.leaves > c.bound {
		c.root.trim()
	}
	return c.encode()
}

func (c *boundedTrie) join(n *trieNode) {
	if c.root == nil {
		c.root = n
		return
	}
	c.root.join(n)
}

func (c *boundedTrie) payload() []byte { return slices.Clone(c.encoded) }

func (c *boundedTrie) encode() (err error) {
	m := &pipepb.BoundedTrie{Bound: int32(c.bound)}
	if c.root != nil {
		m.Root = c.root.write()
	}
	c.encoded, err = proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return err
}

// readTrie copies a node. Its depth is bounded by what the proto decoder accepts.
func readTrie(m *pipepb.BoundedTrieNode) *trieNode {
	n := &trieNode{truncated: m.GetTruncated()}
	if !n.truncated && len(m.GetChildren()) > 0 {
		n.children = make(map[string]*trieNode, len(m.GetChildren()))
		for k, child := range m.GetChildren() {
			n.children[k] = readTrie(child)
		}
	}
	n.count()
	return n
}

func (n *trieNode) write() *pipepb.BoundedTrieNode {
	m := &pipepb.BoundedTrieNode{Truncated: n.truncated}
	if len(n.children) > 0 {
		m.Children = make(map[string]*pipepb.BoundedTrieNode, len(n.children))
		for k, child := range n.children {
			m.Children[k] = child.write()
		}
	}
	return m
}

// count sets leaves from the children's.
func (n *trieNode) count() {
	n.leaves = 0
	for _, child := range n.children {
		n.leaves += child.leaves
	}
	n.leaves = max(n.leaves, 1)
}

// join adds other's paths to n's. It takes other's nodes over.
func (n *trieNode) join(other *trieNode) {
	switch {
	case n.truncated || len(other.children) == 0 && !other.truncated:
	case other.truncated || len(n.children) == 0:
		*n = *other
	default:
		for k, child := range other.children {
			if mine := n.children[k]; mine != nil {
				mine.join(child)
			} else {
				n.children[k] = child
			}
		}
		n.count()
	}
}

// trim truncates the deepest branching below n where the most leaves are. Among equals the first name's goes, so
// that the outcome does not depend on the order of a map.
func (n *trieNode) trim() {
	var most *trieNode
	var name string
	for k, child := range n.children {
		if most == nil || child.leaves > most.leaves || child.leaves == most.leaves && k < name {
			most, name = child, k
		}
	}
	if most == nil || most.leaves == 1 {
		*n = trieNode{truncated: true, leaves: 1}
		return
	}
	most.trim()
	n.count()
}
