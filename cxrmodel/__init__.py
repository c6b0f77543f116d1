"""Learn from chest X-rays: data, models, training, evaluation and report, without an orchestrator."""
