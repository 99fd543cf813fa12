"""The update bot: finds new releases, converts and proves them, and opens one pull request for each."""
