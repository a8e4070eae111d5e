"""Method × protocol × fold × seed becomes jobs; a job becomes a stored run."""
