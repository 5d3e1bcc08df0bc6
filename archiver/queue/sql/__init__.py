"""The statements of the queue, in folders by what they do."""

from archiver.postgres.statements import Statements

sql = Statements(__name__)
