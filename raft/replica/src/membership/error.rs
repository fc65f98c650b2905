//! Why the membership was not changed: [`MemberError`].

use tonic::Status;

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("member not found")]
    NotFound,
    #[error("member ID already exist")]
    Exists,
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("can only promote a learner member")]
    NotLearner,
    #[error("too many learner members in cluster")]
    TooManyLearners,
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Members that vote do not answer the leader.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// Another change is not committed yet.
    #[error("a change of the membership is under way")]
    InProgress,
    #[error("no leader")]
    NoLeader,
    #[error("request timed out")]
    TimedOut,
}

impl MemberError {
    pub fn to_status(&self) -> Status {
        match self {
            Self::NotFound => Status::not_found(self.to_string()),
            Self::Exists => Status::already_exists(self.to_string()),
            Self::NoLeader | Self::InProgress => Status::unavailable(self.to_string()),
            Self::TimedOut => Status::deadline_exceeded(self.to_string()),
            _ => Status::aborted(self.to_string()),
        }
    }

    pub(super) fn from_status(status: &Status) -> Self {
        let told = [
            Self::LearnerNotReady,
            Self::NotLearner,
            Self::TooManyLearners,
            Self::NotEnoughStarted,
            Self::Unhealthy,
        ];
        match status.code() {
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists => Self::Exists,
            tonic::Code::DeadlineExceeded => Self::TimedOut,
            _ => told
                .into_iter()
                .find(|error| error.to_string() == status.message())
                .unwrap_or(Self::NoLeader),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_leader_refuses_is_told_as_it_is() {
        for error in [
            MemberError::NotFound,
            MemberError::Exists,
            MemberError::LearnerNotReady,
            MemberError::NotLearner,
            MemberError::TooManyLearners,
            MemberError::NotEnoughStarted,
            MemberError::Unhealthy,
            MemberError::NoLeader,
            MemberError::TimedOut,
        ] {
            assert_eq!(MemberError::from_status(&error.to_status()), error);
        }
    }
}
