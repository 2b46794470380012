"""What several test files share: toy rows, small cells, the command line, and guards against what a test leaves."""
