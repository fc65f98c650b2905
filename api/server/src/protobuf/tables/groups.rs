//! The kinds of the named groups: workloads, leases, scales, evictions and access reviews.
//! The notation is described in `schema`.

pub const TABLE: &str = r"
ReplicaSet: 1 metadata ObjectMeta, 2 spec ReplicaSetSpec, 3 status ReplicaSetStatus
ReplicaSetSpec: 1 replicas int32=, 2 selector LabelSelector=, 3 template PodTemplateSpec,
 4 minReadySeconds int32
ReplicaSetStatus: 1 replicas int32=, 2 fullyLabeledReplicas int32, 3 observedGeneration int64,
 4 readyReplicas int32, 5 availableReplicas int32, 6 conditions []ReplicaSetCondition,
 7 terminatingReplicas int32=
ReplicaSetCondition: 1 type string=, 2 status string=, 3 lastTransitionTime Time, 4 reason string,
 5 message string
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status DeploymentStatus
DeploymentSpec: 1 replicas int32=, 2 selector LabelSelector=, 3 template PodTemplateSpec,
 4 strategy DeploymentStrategy, 5 minReadySeconds int32, 6 revisionHistoryLimit int32=, 7 paused bool,
 9 progressDeadlineSeconds int32=
DeploymentStrategy: 1 type string, 2 rollingUpdate RollingUpdateDeployment=
RollingUpdateDeployment: 1 maxUnavailable IntOrString=, 2 maxSurge IntOrString=
DeploymentStatus: 1 observedGeneration int64, 2 replicas int32, 3 updatedReplicas int32,
 4 availableReplicas int32, 5 unavailableReplicas int32, 6 conditions []DeploymentCondition,
 7 readyReplicas int32, 8 collisionCount int32=, 9 terminatingReplicas int32=
DeploymentCondition: 1 type string=, 2 status string=, 4 reason string, 5 message string,
 6 lastUpdateTime Time, 7 lastTransitionTime Time
Lease: 1 metadata ObjectMeta, 2 spec LeaseSpec
LeaseSpec: 1 holderIdentity string=, 2 leaseDurationSeconds int32=, 3 acquireTime MicroTime=,
 4 renewTime MicroTime=, 5 leaseTransitions int32=, 6 strategy string=, 7 preferredHolder string=
Scale: 1 metadata ObjectMeta, 2 spec ScaleSpec, 3 status ScaleStatus
ScaleSpec: 1 replicas int32=
ScaleStatus: 1 replicas int32=, 2 selector string
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions=
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec,
 3 status SubjectAccessReviewStatus
SelfSubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes=,
 2 nonResourceAttributes NonResourceAttributes=
ResourceAttributes: 1 namespace string, 2 verb string, 3 group string, 4 version string, 5 resource string,
 6 subresource string, 7 name string, 8 fieldSelector FieldSelectorAttributes=,
 9 labelSelector LabelSelectorAttributes=
FieldSelectorAttributes: 1 rawSelector string, 2 requirements []FieldSelectorRequirement
LabelSelectorAttributes: 1 rawSelector string, 2 requirements []LabelSelectorRequirement
NonResourceAttributes: 1 path string, 2 verb string
SubjectAccessReviewStatus: 1 allowed bool=, 2 reason string, 3 evaluationError string, 4 denied bool
SelfSubjectRulesReview: 1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec,
 3 status SubjectRulesReviewStatus
SelfSubjectRulesReviewSpec: 1 namespace string
SubjectRulesReviewStatus: 1 resourceRules []ResourceRule, 2 nonResourceRules []NonResourceRule,
 3 incomplete bool=, 4 evaluationError string
ResourceRule: 1 verbs []string, 2 apiGroups []string, 3 resources []string, 4 resourceNames []string
NonResourceRule: 1 verbs []string, 2 nonResourceURLs []string
SelfSubjectReview: 1 metadata ObjectMeta, 2 status SelfSubjectReviewStatus
SelfSubjectReviewStatus: 1 userInfo UserInfo
UserInfo: 1 username string, 2 uid string, 3 groups []string, 4 extra {}ExtraValue
";
