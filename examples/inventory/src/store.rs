//! The rows: tables, statements, transactions. Knows nothing of HTTP or NATS.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{FromRow, Sqlite, Transaction};
use uuid::Uuid;

/// Keys are UUIDs: two nodes that add rows at the same moment never pick the same one.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS items (
        id         TEXT PRIMARY KEY NOT NULL,
        name       TEXT NOT NULL,
        quantity   INTEGER NOT NULL,
        price      REAL NOT NULL,
        updated_at INTEGER NOT NULL -- Milliseconds since 1970.
    );
    CREATE TABLE IF NOT EXISTS movements (
        id        TEXT PRIMARY KEY NOT NULL,
        item_id   TEXT NOT NULL REFERENCES items (id) ON DELETE CASCADE,
        delta     INTEGER NOT NULL,
        note      TEXT,
        booked_at INTEGER NOT NULL -- Milliseconds since 1970.
    );
    CREATE INDEX IF NOT EXISTS movements_of_item ON movements (item_id, booked_at);";

const ITEMS: &str = "SELECT id, name, quantity, price, updated_at FROM items ORDER BY name, id";
const ITEM: &str = "SELECT id, name, quantity, price, updated_at FROM items WHERE id = ?1";
const MOVEMENTS: &str =
    "SELECT id, item_id, delta, note, booked_at FROM movements WHERE item_id = ?1 ORDER BY booked_at, id";

/// A row of `items`. Its JSON is also the `data` of a change event: every column, under its name.
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct Item {
    pub id: String,
    pub name: String,
    pub quantity: i64,
    pub price: f64,
    pub updated_at: i64,
}

/// A row of `movements`.
#[derive(Debug, FromRow, Serialize)]
pub struct Movement {
    pub id: String,
    pub item_id: String,
    pub delta: i64,
    pub note: Option<String>,
    pub booked_at: i64,
}

/// The service's database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, and makes it and its tables when they are missing.
    pub async fn open(path: &Path) -> sqlx::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// Closes every connection; the last one empties the WAL into the database.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// All items, by name.
    pub async fn items(&self) -> sqlx::Result<Vec<Item>> {
        sqlx::query_as(ITEMS).fetch_all(&self.pool).await
    }

    /// One item.
    pub async fn item(&self, id: &str) -> sqlx::Result<Option<Item>> {
        sqlx::query_as(ITEM).bind(id).fetch_optional(&self.pool).await
    }

    /// Adds an item.
    pub async fn add_item(&self, name: &str, quantity: i64, price: f64) -> sqlx::Result<Item> {
        let item = Item { id: new_id(), name: name.to_owned(), quantity, price, updated_at: now_ms() };
        sqlx::query("INSERT INTO items (id, name, quantity, price, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(&item.id)
            .bind(&item.name)
            .bind(item.quantity)
            .bind(item.price)
            .bind(item.updated_at)
            .execute(&self.pool)
            .await?;
        Ok(item)
    }

    /// Renames or reprices an item; its quantity is moved by movements alone. `None` when there is no such item.
    pub async fn change_item(&self, id: &str, name: &str, price: f64) -> sqlx::Result<Option<Item>> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE items SET name = ?2, price = ?3, updated_at = ?4 WHERE id = ?1")
            .bind(id)
            .bind(name)
            .bind(price)
            .bind(now_ms())
            .execute(&mut *transaction)
            .await?;
        let item = item_within(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(item)
    }

    /// Deletes an item and, by the foreign key, its movements. Says whether it was there.
    pub async fn delete_item(&self, id: &str) -> sqlx::Result<bool> {
        let done = sqlx::query("DELETE FROM items WHERE id = ?1").bind(id).execute(&self.pool).await?;
        Ok(done.rows_affected() > 0)
    }

    /// The movements of an item, oldest first.
    pub async fn movements(&self, item_id: &str) -> sqlx::Result<Vec<Movement>> {
        sqlx::query_as(MOVEMENTS).bind(item_id).fetch_all(&self.pool).await
    }

    /// Books a movement and the item's new quantity, both or neither. `None` when there is no such item.
    pub async fn book(&self, id: &str, delta: i64, note: Option<&str>) -> sqlx::Result<Option<(Item, Movement)>> {
        let mut transaction = self.begin().await?;
        let now = now_ms();
        sqlx::query("UPDATE items SET quantity = quantity + ?2, updated_at = ?3 WHERE id = ?1")
            .bind(id)
            .bind(delta)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        let Some(item) = item_within(&mut transaction, id).await? else {
            return Ok(None);
        };
        let note = note.map(str::to_owned);
        let movement = Movement { id: new_id(), item_id: item.id.clone(), delta, note, booked_at: now };
        sqlx::query("INSERT INTO movements (id, item_id, delta, note, booked_at) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(&movement.id)
            .bind(&movement.item_id)
            .bind(movement.delta)
            .bind(&movement.note)
            .bind(movement.booked_at)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some((item, movement)))
    }

    /// A writing transaction takes the write lock at its start. One that reads first and writes later would fail at
    /// once, whatever the busy timeout, when another process (the sidecar is one) has written in between.
    async fn begin(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

async fn item_within(transaction: &mut Transaction<'_, Sqlite>, id: &str) -> sqlx::Result<Option<Item>> {
    sqlx::query_as(ITEM).bind(id).fetch_optional(&mut **transaction).await
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
