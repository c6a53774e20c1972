"""From landed deliveries to rows: parse, flatten, evolve; knows no warehouse."""
