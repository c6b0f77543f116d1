"""Learn from chest X-rays: data, models, training, evaluation, report; without an orchestrator."""
