"""Real replicas, as the tests of reading in `tests/databases` have them."""

from tests.groups import group as group
from tests.groups import servers_of_group as servers_of_group
