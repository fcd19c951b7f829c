package parley

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The limits of an HTTP request, and of a connection between two of them.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = 30 * time.Second
	keepAlive      = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

// readGrace is how long connections have to read the end of a response that the shutdown interrupted.
const readGrace = 250 * time.Millisecond

// Run listens on the configured addresses and serves until ctx ends; then it shuts down within the configured time and
// returns what [Server.Shutdown] does. It calls ready, unless it is nil, with the address of the public listener once
// that is bound. An address that cannot be listened on is an error at once, and the server is shut down.
func (s *Server) Run(ctx context.Context, ready func(addr string)) error {
	s.warnOfOpenOrigins()
	s.warnOfFewFiles(fileLimit())
	certificate, err := s.certificate()
	if err != nil {
		return errors.Join(err, s.Shutdown(context.WithoutCancel(ctx)))
	}
	public, operations, err := s.listen(ctx)
	if err != nil {
		return errors.Join(err, s.Shutdown(context.WithoutCancel(ctx)))
	}
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	serve := func(server *http.Server, serve func() error) *http.Server {
		goroutines.Go(func() { ended <- serve() })
		return server
	}

	mux := http.NewServeMux()
	s.Register(mux)
	app := s.httpServer(mux)
	if certificate != nil {
		app.TLSConfig = certificate.config()
		goroutines.Go(func() { certificate.follow(running) })
	}
	servers := []*http.Server{serve(app, func() error {
		if certificate != nil {
			return app.ServeTLS(public, "", "")
		}
		return app.Serve(public)
	})}
	s.log.Info("listening", "addr", public.Addr().String(), "path_prefix", s.cfg.Server.PathPrefix,
		"tls", certificate != nil)
	if operations != nil {
		ops := s.httpServer(s.operations())
		servers = append(servers, serve(ops, func() error { return ops.Serve(operations) }))
		s.log.Info("operations listening", "addr", operations.Addr().String())
	}
	goroutines.Go(func() { s.repeatWarnings(running) })
	if ready != nil {
		ready(public.Addr().String())
	}

	select {
	case <-ctx.Done():
	case err = <-ended:
		err = fmt.Errorf("serve: %w", err)
	}
	stop()
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Server.ShutdownTimeout)
	defer cancel()
	s.log.Info("shutting down", "within", s.cfg.Server.ShutdownTimeout.String())
	if err = errors.Join(err, s.shutdown(deadline, servers)); err == nil {
		s.log.Info("shut down")
	}
	return err
}

// listen binds the public address and the operations', if there is one; both or none.
func (s *Server) listen(ctx context.Context) (public, operations net.Listener, err error) {
	var l net.ListenConfig
	public, err = l.Listen(ctx, "tcp", s.cfg.Server.Addr)
	if err != nil {
		return nil, nil, fmt.Errorf("server.addr: %w", err)
	}
	if s.cfg.Server.OperationsAddr == "" {
		return public, nil, nil
	}
	operations, err = l.Listen(ctx, "tcp", s.cfg.Server.OperationsAddr)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("server.operations_addr: %w", err), public.Close())
	}
	return public, operations, nil
}

// certificate reads the configured certificate; nil: none is configured.
func (s *Server) certificate() (*certificate, error) {
	files := s.cfg.Server.TLS
	if files.CertFile == "" {
		return nil, nil
	}
	c, err := loadCertificate(files, s.log)
	if err != nil {
		return nil, fmt.Errorf("server.tls: %w", err)
	}
	return c, nil
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// spareFiles are the descriptors beside those of WebSocket connections: for the storage, the journal, providers, health.
const spareFiles = 200

// warnOfFewFiles says that connections will fail long before the configured limit refuses them, where that is so.
func (s *Server) warnOfFewFiles(limit uint64) {
	if needed := uint64(s.cfg.WebSocket.MaxConnections) + spareFiles; limit > 0 && limit < needed {
		s.log.Warn("the limit of open files is too low for websocket.max_connections: raise it (ulimit -n, LimitNOFILE), or lower the key",
			"limit", limit, "max_connections", s.cfg.WebSocket.MaxConnections, "needed", needed)
	}
}

// Shutdown ends the server: no connection and no response begins any more; those in progress may finish until shortly
// before ctx's deadline, then responses are interrupted and stored, and connections are cut. It returns [ErrForced]
// where that had to be done, and logs each of them. It returns soon after ctx has ended, whatever hangs; what does is
// then left as it is.
func (s *Server) Shutdown(ctx context.Context) error { return s.shutdown(ctx, nil) }

// lastGrace is how long after its deadline a shutdown may still take to end what it has just forced.
const lastGrace = 500 * time.Millisecond

func (s *Server) shutdown(ctx context.Context, servers []*http.Server) error {
	ended := make(chan error, 1)
	go func() { ended <- s.drain(ctx, servers) }() // nobody can wait for what hangs
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(lastGrace):
		s.log.Error("shutdown hangs, and is left as it is", "responses", s.sessions.Running(), "connections", s.router.Connections())
		for _, server := range servers {
			_ = server.Close() // so that nobody waits for them
		}
		return ErrForced
	}
}

func (s *Server) drain(ctx context.Context, servers []*http.Server) error {
	soft, cancel := beforeDeadline(ctx)
	defer cancel()
	s.router.StartDraining()
	s.sessions.StopTurns()
	interrupted := s.sessions.Drain(soft, ctx)
	if interrupted > 0 {
		// Their readers get the end of what was interrupted.
		soft, cancel = context.WithTimeout(ctx, readGrace)
		defer cancel()
	}
	cut := s.router.Drain(soft)
	stuck := s.router.Close(ctx)
	unanswered := stopListening(soft, servers) // what it cuts leaves time to store
	unstored := s.sessions.Close(ctx)

	if interrupted > 0 || cut > 0 || stuck > 0 || unstored != nil || unanswered != nil {
		s.log.Warn("shutdown forced", "interrupted_responses", interrupted, "cut_connections", cut,
			"stuck_connections", stuck, "unstored", unstored, "unanswered_requests", unanswered)
		if stuck > 0 || unstored != nil {
			s.closeTracer(ctx)
			return ErrForced // what hangs still has the storage
		}
		return errors.Join(ErrForced, s.close(ctx))
	}
	return s.close(ctx)
}

// stopListening ends the listeners and waits for the requests in progress, as long as ctx lasts; then it cuts them.
func stopListening(ctx context.Context, servers []*http.Server) error {
	var errs []error
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, err, server.Close())
		}
	}
	return errors.Join(errs...)
}

// close releases what the server stands on. Nothing uses it any more.
func (s *Server) close(ctx context.Context) error {
	if s.sockets != nil {
		s.sockets.Wait()
	}
	err := s.opened.close()
	s.closeTracer(ctx)
	return err
}

// beforeDeadline keeps the last second of ctx's time, or half of it, for storing what is interrupted.
func beforeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithDeadline(ctx, deadline.Add(-min(time.Second, left/2)))
}
