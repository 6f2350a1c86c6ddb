package artifact

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// line is what is between a worker and what it fetches from: a TCP proxy that fails as a test says.
type line struct {
	listener net.Listener
	target   atomic.Value // string
	// conns counts the connections so far.
	conns atomic.Int32
	// silent lines accept and pass nothing on.
	silent atomic.Bool
	// cut is how many bytes the next connection passes back before it breaks; 0 for all.
	cut atomic.Int64
	// flip changes bytes on their way back where they are this one; 0 for none.
	flip atomic.Int32

	// afterFirst is where connections go after the next one.
	afterFirst atomic.Pointer[string]

	mu   sync.Mutex
	open map[net.Conn]bool
	wg   sync.WaitGroup
}

func newLine(t *testing.T, target string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{listener: listener, open: map[net.Conn]bool{}}
	l.target.Store(target)
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		for conn := range l.open {
			conn.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return l
}

func (l *line) address() string { return l.listener.Addr().String() }

func (l *line) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.conns.Add(1)
		l.keep(conn)
		if l.silent.Load() {
			continue
		}
		back, err := net.Dial("tcp", l.target.Load().(string))
		if next := l.afterFirst.Swap(nil); next != nil {
			l.target.Store(*next)
		}
		if err != nil {
			conn.Close()
			continue
		}
		l.keep(back)
		l.wg.Go(func() {
			defer back.Close()
			io.Copy(back, conn)
		})
		l.wg.Go(func() {
			defer conn.Close()
			l.passBack(conn, back)
		})
	}
}

func (l *line) passBack(conn, back net.Conn) {
	left := l.cut.Swap(0)
	limited := left > 0
	buffer := make([]byte, 32<<10)
	for {
		n, err := back.Read(buffer)
		if limited {
			n = int(min(int64(n), left))
			left -= int64(n)
		}
		if wrong := byte(l.flip.Load()); wrong != 0 {
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

func (l *line) keep(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[conn] = true
}
