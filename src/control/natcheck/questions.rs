//! The questions of a round, and what their answers come to for the judge.
//!
//! Each place is asked where it sees us, asked to answer from elsewhere, and if it tells of a second port, that is asked
//! too. Sends nothing and waits for nothing: that is `observing`'s, and `longwire netcheck`'s.

use std::net::SocketAddr;

use super::{Observation, Stranger};
use crate::wire::observe::{Observe, Observed};

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    token: u64,
    /// Who is asked.
    pub asked: SocketAddr,
    elsewhere: bool,
    answer: Option<Observed>,
}

impl Question {
    /// As it is sent.
    pub fn packet(&self) -> Vec<u8> {
        Observe { token: self.token, elsewhere: self.elsewhere }.bytes()
    }
}

/// Those of a round, in the order in which they are put.
#[derive(Debug, Default)]
pub struct Questions(Vec<Question>);

impl Questions {
    /// One more, unless it was put before.
    pub fn add(&mut self, asked: SocketAddr, elsewhere: bool, token: impl FnOnce() -> u64) -> Option<Question> {
        let is_it = |question: &Question| question.asked == asked && question.elsewhere == elsewhere;
        if self.0.iter().any(is_it) {
            return None;
        }
        let question = Question { token: token(), asked, elsewhere, answer: None };
        self.0.push(question);
        Some(question)
    }

    /// Whether nobody was asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A new round.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What is put again.
    pub fn open(&self) -> impl Iterator<Item = &Question> {
        self.0.iter().filter(|question| question.answer.is_none())
    }

    /// Whether this answers one of them.
    pub fn awaits(&self, answer: Observed) -> bool {
        self.0.iter().any(|question| question.token == answer.token)
    }

    /// Keeps an answer; gives the second port that it tells of.
    pub fn keep(&mut self, answer: Observed) -> Option<SocketAddr> {
        let is_its =
            |question: &&mut Question| (question.token, question.elsewhere) == (answer.token, answer.elsewhere);
        let question = self.0.iter_mut().find(is_its)?;
        question.answer = Some(answer);
        answer.other_of(question.asked).filter(|_| !answer.elsewhere)
    }

    /// Who saw us where.
    pub fn observations(&self) -> Vec<Observation> {
        let here = self.0.iter().filter(|question| !question.elsewhere);
        here.filter_map(|one| Some(Observation { asked: one.asked, seen: one.answer?.seen })).collect()
    }

    /// Whether a port that we never sent to came through; its silence counts only where it was asked for.
    pub fn stranger(&self) -> Stranger {
        let mut found = Stranger::Unasked;
        for question in self.0.iter().filter(|question| question.elsewhere) {
            let here = |other: &&Question| other.asked == question.asked && !other.elsewhere;
            let known = self.0.iter().find(here).and_then(|here| here.answer);
            let other = known.and_then(|known| known.other_of(question.asked));
            match (other, question.answer) {
                (Some(other), Some(_)) if other.ip() != question.asked.ip() => return Stranger::OtherAddress,
                (Some(_), Some(_)) => found = Stranger::OtherPort,
                (Some(_), None) if found == Stranger::Unasked => found = Stranger::Silent,
                (Some(_) | None, _) => {}
            }
        }
        found
    }
}
