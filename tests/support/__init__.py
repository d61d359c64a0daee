"""What the tests run against: private database servers and a network that can be made to fail."""
