package certificate

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// core hands certmagic's errors to slog; of their fields only those that are known to be harmless.
type core struct {
	zapcore.LevelEnabler
	log *slog.Logger
}

func bridge(log *slog.Logger) *zap.Logger { return zap.New(core{zapcore.ErrorLevel, log}) }

// With drops the fields, which Write would not log either.
func (c core) With([]zapcore.Field) zapcore.Core { return c }

// Check is part of zapcore.Core.
func (c core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write is part of zapcore.Core.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	attrs := []slog.Attr{slog.String("message", e.Message)}
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			attrs = append(attrs, slog.String("error", err.Error()))
		} else if f.Key == "identifier" {
			attrs = append(attrs, slog.String("name", f.String))
		}
	}
	c.log.LogAttrs(context.Background(), slog.LevelError, "ACME", attrs...)
	return nil
}

// Sync is part of zapcore.Core.
func (c core) Sync() error { return nil }
