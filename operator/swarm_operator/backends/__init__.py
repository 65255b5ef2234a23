"""Where children run. Each backend observes and applies; the plan is the same for all."""
