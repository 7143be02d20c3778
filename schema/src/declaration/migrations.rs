//! The tables in which migration tools note what they have run on a database. Each node runs its own migrations, so
//! they stay on their node: replicated, a migration that ran on one of them would count as done on all.

use crate::table::{Refusal, Table};

/// What the tools call them: Django, Alembic, Drizzle, Prisma, Rails with Ecto, dbmate and golang-migrate, sqlx, Diesel,
/// SeaORM, refinery, goose, Flyway, Liquibase, Knex, Sequelize, Kysely, EF Core, Atlas, MikroORM, Phinx.
const NAMES: [&str; 24] = [
    "django_migrations",
    "alembic_version",
    "__drizzle_migrations",
    "_prisma_migrations",
    "schema_migrations",
    "ar_internal_metadata",
    "_sqlx_migrations",
    "__diesel_schema_migrations",
    "seaql_migrations",
    "refinery_schema_history",
    "goose_db_version",
    "flyway_schema_history",
    "DATABASECHANGELOG",
    "DATABASECHANGELOGLOCK",
    "knex_migrations",
    "knex_migrations_lock",
    "SequelizeMeta",
    "kysely_migration",
    "kysely_migration_lock",
    "__EFMigrationsHistory",
    "__EFMigrationsLock",
    "atlas_schema_revisions",
    "mikro_orm_migrations",
    "phinxlog",
];

/// What TypeORM and Laravel call theirs, a name that a service could have for something of its own: and the columns of each.
const MIGRATIONS: (&str, [[&str; 2]; 2]) = ("migrations", [["timestamp", "name"], ["migration", "batch"]]);

/// Why the table should stay on its node, if it is such a one.
pub(super) fn stays(table: &Table) -> Option<Refusal> {
    let is = |name: &str| table.name.eq_ignore_ascii_case(name);
    let (name, columns) = MIGRATIONS;
    let named_plainly = is(name) && columns.iter().any(|pair| pair.iter().all(|name| table.column(name).is_some()));
    (NAMES.into_iter().any(is) || named_plainly).then(|| Refusal {
        reason:
            "a migration tool notes there what it has run on this database; replicated, a migration that ran on one \
                 node would count as done on all"
                .to_owned(),
        fix: "leave it out of the schema TOML, and run the migrations on every node".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::example;

    #[test]
    fn what_migration_tools_note_stays_on_its_node() {
        let of = |name: &str, columns: &[&str]| stays(&example(name, columns, &["id"])).is_some();
        assert!(of("django_migrations", &["id"]) && of("databasechangelog", &["id"]));
        assert!(of("migrations", &["id", "timestamp", "name"]) && of("migrations", &["id", "migration", "batch"]));
        assert!(!of("migrations", &["id", "species", "name"]) && !of("django_session", &["id"]));
    }
}
