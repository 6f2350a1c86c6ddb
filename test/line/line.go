// Package line is a network line between a client and a server that fails as a test says.
package line

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Line is a TCP proxy. Its fields may be set while it runs.
type Line struct {
	listener net.Listener
	// Target is the address that new connections go to.
	Target atomic.Value // string
	// Conns counts the connections so far.
	Conns atomic.Int32
	// Silent says that new connections are accepted, and nothing is passed on.
	Silent atomic.Bool
	// Cut is how many bytes the next connection passes back before it breaks; 0 for all.
	Cut atomic.Int64
	// Flip changes bytes on their way back where they are this one; 0 for none.
	Flip atomic.Int32

	// AfterFirst is where connections go after the next one.
	AfterFirst atomic.Pointer[string]

	mu   sync.Mutex
	open map[net.Conn]bool
	wg   sync.WaitGroup
}

// New makes a line to a server's address. It is taken down when the test ends.
func New(t *testing.T, target string) *Line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{listener: listener, open: map[net.Conn]bool{}}
	l.Target.Store(target)
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		l.Close()
		l.Break()
		l.wg.Wait()
	})
	return l
}

// Address is the line's near end, as host:port.
func (l *Line) Address() string { return l.listener.Addr().String() }

// Close ends the line: connections are refused. Those that are open stay.
func (l *Line) Close() { l.listener.Close() }

// Break breaks the connections that are open.
func (l *Line) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		conn.Close()
	}
	clear(l.open)
}

func (l *Line) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.Conns.Add(1)
		l.keep(conn)
		if l.Silent.Load() {
			continue
		}
		back, err := net.Dial("tcp", l.Target.Load().(string))
		if next := l.AfterFirst.Swap(nil); next != nil {
			l.Target.Store(*next)
		}
		if err != nil {
			conn.Close()
			continue
		}
		l.keep(back)
		l.wg.Go(func() {
			defer back.Close()
			_, _ = io.Copy(back, conn) // one that breaks is what a line is for
		})
		l.wg.Go(func() {
			defer conn.Close()
			l.passBack(conn, back)
		})
	}
}

func (l *Line) passBack(conn, back net.Conn) {
	left := l.Cut.Swap(0)
	limited := left > 0
	buffer := make([]byte, 32<<10)
	for {
		n, err := back.Read(buffer)
		if limited {
			n = int(min(int64(n), left))
			left -= int64(n)
		}
		if wrong := byte(l.Flip.Load()); wrong != 0 {
			for i := range buffer[:n] {
				if buffer[i] == wrong {
					buffer[i] = '?'
				}
			}
		}
		if _, writing := conn.Write(buffer[:n]); err != nil || writing != nil || limited && left == 0 {
			return
		}
	}
}

func (l *Line) keep(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[conn] = true
}
