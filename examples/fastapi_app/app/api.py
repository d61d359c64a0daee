"""The endpoints: one session for each request, committed before the answer is sent.

`TransactionDep` commits by itself when the endpoint has returned; with `SessionDep` the endpoint says when.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select

from app.models import Item, ItemIn, Items, Token, User, UserIn, UserOut
from app.security import digest, hash_password, is_password, new_token
from dbconfig.integrations.fastapi import SessionDep, TransactionDep

router = APIRouter()


def current_user(session: SessionDep, bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> User:
    token = session.get(Token, digest(bearer.credentials))
    user = session.get(User, token.user_id) if token is not None else None
    if user is None:
        raise HTTPException(401, "log in again")
    return user


# One session for the whole of a request: an endpoint with this user and a `SessionDep` gets the same one twice. Two of
# them would be two connections, and requests that each hold one and wait for another would wait for each other.
CurrentUser = Annotated[User, Depends(current_user)]


@router.post("/users", status_code=201, response_model=UserOut)
def sign_up(given: UserIn, session: TransactionDep) -> User:
    user = User(email=given.email.lower(), password_hash=hash_password(given.password))
    session.add(user)
    try:
        session.flush()
    except IntegrityError:
        raise HTTPException(409, "there is a user with this address") from None
    return user


@router.post("/login")
def log_in(given: UserIn, session: TransactionDep) -> dict[str, str]:
    user = session.exec(select(User).where(User.email == given.email.lower())).first()
    if user is None or not is_password(given.password, user.password_hash):
        raise HTTPException(400, "wrong address or password")
    token = new_token()
    session.add(Token(digest=digest(token), user_id=user.id or 0))
    return {"access_token": token, "token_type": "bearer"}


@router.get("/users/me", response_model=UserOut)
def me(user: CurrentUser) -> User:
    return user


@router.delete("/users/me", status_code=204)
def leave(user: CurrentUser, session: SessionDep) -> None:
    session.delete(user)
    session.commit()


@router.get("/items")
def read_items(
    user: CurrentUser,
    session: SessionDep,
    skip: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(le=100)] = 20,
) -> Items:
    mine = Item.owner_id == user.id
    count = session.exec(select(func.count()).select_from(Item).where(mine)).one()
    data = session.exec(select(Item).where(mine).order_by(col(Item.id)).offset(skip).limit(limit)).all()
    return Items(data=list(data), count=count)


@router.post("/items", status_code=201)
def create_item(given: ItemIn, user: CurrentUser, session: SessionDep) -> Item:
    item = Item.model_validate(given, update={"owner_id": user.id})
    session.add(item)
    session.commit()
    session.refresh(item)
    return item


def _own_item(session: SessionDep, user: CurrentUser, number: int) -> Item:
    item = session.get(Item, number)
    if item is None or item.owner_id != user.id:
        raise HTTPException(404, "no such item")
    return item


@router.get("/items/{number}")
def read_item(number: int, user: CurrentUser, session: SessionDep) -> Item:
    return _own_item(session, user, number)


@router.put("/items/{number}")
def change_item(number: int, given: ItemIn, user: CurrentUser, session: SessionDep) -> Item:
    item = _own_item(session, user, number)
    item.sqlmodel_update(given)
    session.commit()
    session.refresh(item)
    return item


@router.delete("/items/{number}", status_code=204)
def delete_item(number: int, user: CurrentUser, session: SessionDep) -> None:
    session.delete(_own_item(session, user, number))
    session.commit()
