# One process, with every role or with those that SPAMER_ROLES names. No secret goes into an image: `.dockerignore` keeps them out of the build.
FROM node:20.20.2-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build && rm -rf dist/tests dist/load-tests && npm prune --omit=dev --ignore-scripts
# The client of a log on Kafka is no dependency of the program (decision 0050): the one that the tests use, of the versions locked there.
WORKDIR /kafka
COPY tests/servers/package.json tests/servers/package-lock.json ./
RUN npm pkg delete dependencies 'optionalDependencies.@chdb/lib-linux-x64-gnu' && npm install && node -e "require('@confluentinc/kafka-javascript'); require.resolve('@platformatic/kafka')"

FROM node:20.20.2-bookworm-slim
# npm and yarn are not needed to run, and are most of what scanners find in such an image.
RUN rm -rf /usr/local/lib/node_modules /opt/yarn* /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/yarn* /usr/local/bin/corepack \
  && mkdir /data && chmod 1777 /data
WORKDIR /app
COPY --from=build /build/package.json /build/LICENSE /build/CHANGELOG.md ./
COPY --from=build /build/node_modules node_modules
COPY --from=build /kafka/node_modules /kafka/node_modules
COPY --from=build /build/schemas/avro schemas/avro
COPY --from=build /build/schemas/golden schemas/golden
COPY --from=build /build/registry/migrations registry/migrations
COPY --from=build /build/security/policies security/policies
COPY --from=build /build/demo demo
COPY --from=build /build/dist dist
COPY --from=build /build/deploy/healthy.mjs deploy/healthy.mjs

# Whoever runs it, by its number: the program makes its folder in here itself, for itself only.
ENV NODE_ENV=production NODE_PATH=/kafka/node_modules SPAMER_DATA_DIR=/data/spamer
VOLUME /data
USER 1000:1000
EXPOSE 8080 9090
# Alive, not ready: who is not ready gets no requests, and is not to be ended for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "/app/deploy/healthy.mjs", "/healthz"]
ENTRYPOINT ["node", "/app/dist/cli/main.js"]
CMD ["run"]
