"""The long stages on several processes or machines, by Ray; the `ray` extra, never needed."""
