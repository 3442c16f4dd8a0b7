"""Executors: where jobs run when the user types ``--on``, and what a job does there. ray is imported only on demand."""
