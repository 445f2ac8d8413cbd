"""Language models aligned with preferences. Announced, not built yet: see the roadmap in docs/roadmap.md."""
