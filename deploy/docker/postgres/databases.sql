-- Run once, on an empty volume. The warehouse has been made already (POSTGRES_DB).
CREATE DATABASE registry;
CREATE DATABASE dagster;
