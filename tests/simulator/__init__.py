"""The simulator is tested over HTTP alone: by its answers, its connections and its report."""
