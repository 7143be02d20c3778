//! The HTTP API. Each handler writes, commits, and only then announces.
//!
//! A write to `/items` takes `?ack=1`: then the answer comes once the sidecar has recorded the change, with its
//! sequence number in the header `Sequence-Number`. When the sidecar does not answer, the write stands all the same:
//! 202, and the reason in the header `Not-Recorded`.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::announce::{Announcer, ChangeEvent};
use crate::store::{Item, Movement, Store};

#[derive(Clone)]
struct Parts {
    store: Store,
    announcer: Announcer,
}

/// All routes.
pub fn router(store: Store, announcer: Announcer) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/items", get(list_items).post(create_item))
        .route("/items/{id}", get(get_item).put(update_item).delete(delete_item))
        .route("/items/{id}/movements", get(list_movements))
        .route("/items/{id}/movements", post(book_movement))
        .with_state(Parts { store, announcer })
}

/// What stands in the way of an answer.
enum Problem {
    NotFound,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, Json(json!({ "error": "no such item" }))).into_response(),
            Self::Database(error) => {
                eprintln!("inventory: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error.to_string() }))).into_response()
            }
        }
    }
}

#[derive(Deserialize)]
struct Acknowledge {
    ack: Option<u8>,
}

#[derive(Deserialize)]
struct NewItem {
    name: String,
    #[serde(default)]
    quantity: i64,
    price: f64,
}

#[derive(Deserialize)]
struct ChangedItem {
    name: String,
    price: f64,
}

#[derive(Deserialize)]
struct NewMovement {
    delta: i64,
    note: Option<String>,
}

#[derive(Serialize)]
struct Booked {
    item: Item,
    movement: Movement,
}

async fn list_items(State(parts): State<Parts>) -> Result<Json<Vec<Item>>, Problem> {
    Ok(Json(parts.store.items().await?))
}

async fn get_item(State(parts): State<Parts>, Path(id): Path<String>) -> Result<Json<Item>, Problem> {
    parts.store.item(&id).await?.map(Json).ok_or(Problem::NotFound)
}

async fn create_item(
    State(parts): State<Parts>,
    Query(query): Query<Acknowledge>,
    Json(new): Json<NewItem>,
) -> Result<Response, Problem> {
    let item = parts.store.add_item(&new.name, new.quantity, new.price).await?;
    let answer = (StatusCode::CREATED, Json(&item)).into_response();
    Ok(parts.announce(ChangeEvent::created(&item), &query, answer).await)
}

async fn update_item(
    State(parts): State<Parts>,
    Path(id): Path<String>,
    Query(query): Query<Acknowledge>,
    Json(changed): Json<ChangedItem>,
) -> Result<Response, Problem> {
    let item = parts.store.change_item(&id, &changed.name, changed.price).await?.ok_or(Problem::NotFound)?;
    let answer = Json(&item).into_response();
    Ok(parts.announce(ChangeEvent::updated(&item), &query, answer).await)
}

async fn delete_item(
    State(parts): State<Parts>,
    Path(id): Path<String>,
    Query(query): Query<Acknowledge>,
) -> Result<Response, Problem> {
    if !parts.store.delete_item(&id).await? {
        return Err(Problem::NotFound);
    }
    let answer = StatusCode::NO_CONTENT.into_response();
    Ok(parts.announce(ChangeEvent::deleted(&id), &query, answer).await)
}

async fn list_movements(State(parts): State<Parts>, Path(id): Path<String>) -> Result<Json<Vec<Movement>>, Problem> {
    parts.store.item(&id).await?.ok_or(Problem::NotFound)?;
    Ok(Json(parts.store.movements(&id).await?))
}

async fn book_movement(
    State(parts): State<Parts>,
    Path(id): Path<String>,
    Query(query): Query<Acknowledge>,
    Json(new): Json<NewMovement>,
) -> Result<Response, Problem> {
    let booked = parts.store.book(&id, new.delta, new.note.as_deref()).await?;
    let (item, movement) = booked.ok_or(Problem::NotFound)?;
    let event = ChangeEvent::updated(&item); // The movement needs none: triggers capture it.
    let answer = (StatusCode::CREATED, Json(Booked { item, movement })).into_response();
    Ok(parts.announce(event, &query, answer).await)
}

impl Parts {
    /// Announces what was committed, and writes into the answer what became of it when the caller asked.
    async fn announce(&self, event: ChangeEvent, query: &Acknowledge, mut answer: Response) -> Response {
        if query.ack != Some(1) {
            self.announcer.tell(event);
            return answer;
        }
        match self.announcer.confirm(event).await {
            Ok(sequence_number) => {
                answer.headers_mut().insert(HeaderName::from_static("sequence-number"), sequence_number.into());
            }
            Err(error) => {
                *answer.status_mut() = StatusCode::ACCEPTED;
                let reason = HeaderValue::from_str(&format!("{error:#}"));
                let reason = reason.unwrap_or(HeaderValue::from_static("the sidecar did not answer"));
                answer.headers_mut().insert(HeaderName::from_static("not-recorded"), reason);
            }
        }
        answer
    }
}
