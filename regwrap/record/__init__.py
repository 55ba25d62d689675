"""The record of a run that others read: JSON, JUnit, a CI's annotations, and the records of shards put together."""
