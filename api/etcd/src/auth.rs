//! The Auth service of a cluster in which authentication is off and no user or role exists.
//!
//! What can be said truthfully of such a cluster is answered as etcd answers it; making users and roles is not
//! offered yet, and says so.

use std::future::ready;

use barque_proto::etcd::etcdserverpb::{auth_server::Auth, *};
use tonic::{Request, Response, Status};

use crate::{Error, EtcdServer, Method};

const USERS: Error = Error::Unimplemented {
    what: "adding a user",
};
const ROLES: Error = Error::Unimplemented {
    what: "adding a role",
};

#[tonic::async_trait]
impl Auth for EtcdServer {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::RootUserNotExist)))
            .await
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| {
                ready(Ok(AuthDisableResponse {
                    header: Some(self.shared.current_header()),
                }))
            })
            .await
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| {
                ready(Ok(AuthStatusResponse {
                    header: Some(self.shared.current_header()),
                    enabled: false,
                    auth_revision: 1,
                }))
            })
            .await
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::AuthNotEnabled)))
            .await
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(USERS)))
            .await
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::UserNotFound)))
            .await
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| {
                ready(Ok(AuthUserListResponse {
                    header: Some(self.shared.current_header()),
                    users: Vec::new(),
                }))
            })
            .await
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::UserNotFound)))
            .await
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::UserNotFound)))
            .await
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::UserNotFound)))
            .await
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::UserNotFound)))
            .await
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(ROLES)))
            .await
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::RoleNotFound)))
            .await
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| {
                ready(Ok(AuthRoleListResponse {
                    header: Some(self.shared.current_header()),
                    roles: Vec::new(),
                }))
            })
            .await
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::RoleNotFound)))
            .await
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::RoleNotFound)))
            .await
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        self.shared
            .unary(Method::Auth, request, |_| ready(Err(Error::RoleNotFound)))
            .await
    }
}
