// Command peer is a River client that executes the calls that it reads from standard input.
//
// It speaks the protocol of River's conformance adapters: JSON-RPC 2.0, one object a line. Methods
// whose names begin with "interop_" are our own.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"
)

const defaultApplicationName = "river-conformance-go"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(os.Getenv("RIVER_CONFORMANCE_DATABASE_URL"))
	if err != nil {
		return err
	}
	application := os.Getenv("RIVER_CONFORMANCE_APPLICATION_NAME")
	if application == "" {
		application = defaultApplicationName
	}
	config.ConnConfig.RuntimeParams["application_name"] = application
	config.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()

	level := slog.LevelWarn
	if os.Getenv("PEER_DEBUG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	peer := newPeer(pool, application, logger)
	defer peer.close()

	lines := make(chan []byte)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(os.Stdin)
		scanner.Buffer(make([]byte, 1<<20), 1<<28)
		for scanner.Scan() {
			lines <- append([]byte(nil), scanner.Bytes()...)
		}
	}()
	answers := json.NewEncoder(os.Stdout)
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, more := <-lines:
			if !more {
				return nil
			}
			if err := answers.Encode(peer.answer(ctx, line)); err != nil {
				return err
			}
		}
	}
}
