package parley

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/anthropic"
	"github.com/parley-chat/parley/internal/llm/dify"
	"github.com/parley-chat/parley/internal/llm/eliza"
	"github.com/parley-chat/parley/internal/llm/moderation"
	"github.com/parley-chat/parley/internal/llm/openai"
	"github.com/parley-chat/parley/internal/llm/upstream"
	"github.com/parley-chat/parley/internal/telemetry"
)

// models is the pool of models, and what stands under it.
type models struct {
	pool    *llm.Pool
	closers []io.Closer
	metrics []prometheus.Collector
}

func newModels(cfg config.LLM, tracer *telemetry.Tracer, log *slog.Logger) (*models, error) {
	m := &models{}
	err := m.open(cfg, tracer, log)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *models) open(cfg config.LLM, tracer *telemetry.Tracer, log *slog.Logger) error {
	pool := llm.Config{
		Tracer:        tracer,
		Default:       cfg.DefaultModel,
		HistoryTokens: cfg.HistoryTokens,
		HedgeAfter:    cfg.HedgeAfter,
		Breaker:       llm.Breaker{Failures: cfg.Breaker.Failures, Delay: cfg.Breaker.Delay},
		Retry: llm.Retry{
			MaxAttempts: cfg.Retry.MaxAttempts, InitialBackoff: cfg.Retry.InitialBackoff, MaxBackoff: cfg.Retry.MaxBackoff,
		},
	}
	targets := make(map[string]llm.Target)
	for _, p := range cfg.Providers {
		provider, err := m.openProvider(cfg, p)
		if err != nil {
			return err
		}
		targets[p.ID] = llm.Target{
			ProviderID: p.ID, Kind: p.Type, Address: hostOf(p.BaseURL), Provider: provider,
			Timeouts: llm.Timeouts{
				FirstToken: cmp.Or(p.FirstTokenTimeout, cfg.FirstTokenTimeout),
				Idle:       cmp.Or(p.IdleTimeout, cfg.IdleTimeout),
				Stream:     cmp.Or(p.StreamTimeout, cfg.StreamTimeout),
			},
		}
	}
	for _, model := range cfg.Models {
		entry := llm.Model{
			ID: model.ID, Name: cmp.Or(model.Name, model.ID),
			SystemPrompt: cmp.Or(model.SystemPrompt, cfg.SystemPrompt),
			Parameters:   chat.Parameters{Temperature: model.Temperature, MaxOutputTokens: model.MaxOutputTokens},
			Price:        llm.Price{Input: model.Price.Input, Output: model.Price.Output},
		}
		for _, name := range model.Targets {
			provider, upstreamModel, _ := config.SplitTarget(name)
			target := targets[provider]
			target.Model = upstreamModel
			entry.Targets = append(entry.Targets, target)
		}
		pool.Models = append(pool.Models, entry)
	}
	if cfg.Moderation.URL != "" {
		hook, err := moderation.New(moderation.Config{
			URL: cfg.Moderation.URL, APIKey: cfg.Moderation.APIKey,
			Timeout: cfg.Moderation.Timeout, AllowOnError: cfg.Moderation.AllowOnError,
		}, log)
		if err != nil {
			return fmt.Errorf("moderation: %w", err)
		}
		pool.Moderator = hook
		m.closers, m.metrics = append(m.closers, hook), append(m.metrics, hook)
	}
	var err error
	if m.pool, err = llm.NewPool(pool, log); err != nil {
		return err
	}
	m.metrics = append(m.metrics, m.pool)
	return nil
}

// hostOf gives the host of a URL, with its port where it has one; nothing else of it, which may be secret.
func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Host
}

// openProvider makes a provider of its type. It is closed with the models, if it is to be closed.
func (m *models) openProvider(cfg config.LLM, p config.Provider) (provider chat.Provider, err error) {
	reach := upstream.Config{
		ID: p.ID, BaseURL: p.BaseURL, APIKey: p.APIKey, Proxy: p.Proxy, CAFile: p.CAFile,
		ConnectTimeout: cmp.Or(p.ConnectTimeout, cfg.ConnectTimeout),
	}
	switch p.Type {
	case config.ProviderOpenAI:
		provider, err = openai.New(reach)
	case config.ProviderAnthropic:
		provider, err = anthropic.New(reach)
	case config.ProviderDify:
		provider, err = dify.New(reach)
	case config.ProviderEliza:
		provider = eliza.New(eliza.Config{Pace: eliza.NaturalPace})
	default:
		err = fmt.Errorf("provider %s: there is no type %q", p.ID, p.Type)
	}
	if err != nil {
		return nil, err
	}
	if closer, ok := provider.(io.Closer); ok {
		m.closers = append(m.closers, closer)
	}
	return provider, nil
}

func (m *models) close() error {
	var errs []error
	for _, c := range m.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// newBudget returns the budget of every user; nil: there is none.
func newBudget(cfg config.Budget, ledger llm.Ledger) *llm.Budget {
	if cfg.Tokens == 0 {
		return nil
	}
	return llm.NewBudget(cfg.Tokens, cfg.Window, ledger)
}
