//! A connection that is made when it is needed, and made anew when it fails.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Script, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::Instant};

use super::{super::Fault, home::Home, refusal::Refusal, server::Address};

/// How often a cluster may send on to another node.
const REDIRECTIONS: usize = 4;

/// What can be asked.
pub(super) trait Question: Send + Sync {
    /// Asks, and reads the answer.
    fn put<T: FromRedisValue + Send>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> impl Future<Output = RedisResult<T>> + Send;
}

impl Question for Cmd {
    fn put<T: FromRedisValue + Send>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> impl Future<Output = RedisResult<T>> + Send {
        self.query_async(connection)
    }
}

impl Question for Pipeline {
    fn put<T: FromRedisValue + Send>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> impl Future<Output = RedisResult<T>> + Send {
        self.query_async(connection)
    }
}

/// Commands that run a script, which the server is given where it does not have it.
pub(super) struct Scripted<'s> {
    pub(super) commands: Pipeline,
    pub(super) script: &'s Script,
}

impl Question for Scripted<'_> {
    async fn put<T: FromRedisValue + Send>(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        match self.commands.query_async(connection).await {
            Err(error) if Refusal::is_no_script(&error) => {
                self.script.load_async(connection).await?;
                self.commands.query_async(connection).await
            }
            answered => answered,
        }
    }
}

/// Between two looks at whether a connection leads somewhere.
const KEEP_OPEN: Duration = Duration::from_secs(1);

/// A connection to the server or node that has the keys, or none.
#[derive(Debug)]
pub(super) struct Way {
    open: Mutex<Option<Open>>,
    /// When it was last seen to lead somewhere.
    tried: Mutex<Option<Instant>>,
    limit: Duration,
}

#[derive(Debug, Clone)]
struct Open {
    connection: MultiplexedConnection,
    to: Address,
}

impl Way {
    /// Not open; an answer takes no longer than `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { open: Mutex::new(None), tried: Mutex::new(None), limit }
    }

    /// Asks over the connection, which is made if there is none, and follows where a cluster sends on.
    pub(super) async fn ask<T: FromRedisValue + Send>(
        &self,
        home: &Home,
        question: &impl Question,
    ) -> Result<T, Fault> {
        for _ in 0..REDIRECTIONS {
            let mut open = self.opened(home).await?;
            let error = match question.put(&mut open.connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let refusal = Refusal::of(&error, &open.to);
            if let Some(elsewhere) = refusal.elsewhere {
                home.moved(elsewhere).await;
                continue;
            }
            if !refusal.lasts {
                self.close().await;
                home.doubt(&open.to).await;
            }
            return Err(fault(&open.to, &refusal.text));
        }
        Err(Fault(format!("redis {}: sent from node to node", home.shown())))
    }

    /// Asks over the connection that is there.
    pub(super) async fn ask_open<T: FromRedisValue + Send>(
        &self,
        home: &Home,
        question: &impl Question,
    ) -> Result<T, Fault> {
        let open = self.open.lock().await.clone();
        let Some(mut open) = open else { return Err(Fault(format!("redis {}: not connected", home.shown()))) };
        match question.put(&mut open.connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // It is made anew by whoever keeps it open.
                self.close().await;
                Err(fault(&open.to, &Refusal::of(&error, &open.to).text))
            }
        }
    }

    /// Sees to it that there is a connection, and that it leads somewhere: those who use it are not patient enough to find that out.
    pub(super) async fn keep_open(&self, home: &Home) -> Result<(), Fault> {
        let mut tried = self.tried.lock().await;
        if tried.is_none_or(|tried| tried.elapsed() >= KEEP_OPEN) || self.open.lock().await.is_none() {
            self.ask::<()>(home, &redis::cmd("PING")).await?;
            *tried = Some(Instant::now());
        }
        Ok(())
    }

    /// What an answer that makes no sense is called.
    pub(super) fn fault(&self, home: &Home, error: &RedisError) -> Fault {
        Fault(format!("redis {}: {error}", home.shown()))
    }

    async fn opened(&self, home: &Home) -> Result<Open, Fault> {
        let at = home.at().await;
        let mut place = self.open.lock().await;
        if let Some(open) = place.as_ref().filter(|open| at.as_ref() == Some(&open.to)) {
            return Ok(open.clone());
        }
        let (to, connection) = home.connect(self.limit).await?;
        let open = Open { connection, to };
        *place = Some(open.clone());
        Ok(open)
    }

    async fn close(&self) {
        *self.open.lock().await = None;
    }
}

fn fault(to: &Address, text: &str) -> Fault {
    Fault(format!("redis {to}: {text}"))
}
