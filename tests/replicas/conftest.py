"""Real replicas, as the tests of reading in `tests/databases` have them, and scripted ones."""

from tests.groups import group as group
from tests.groups import servers_of_group as servers_of_group
from tests.replicas.scripted import world as world
from tests.replicas.scripted import written as written
